"""Containers and pods from a CRI runtime that answers on a unix socket."""

import socket
import threading

import pytest

from collector.metadata.containers import cri as module
from collector.metadata.containers import engine as engine_module
from collector.metadata.containers.catalog import Catalog
from collector.metadata.containers.cri import CriRuntime
from cri import runtime_pb2 as cri
from support.container_engine import engines_end  # noqa: F401
from support.cri_runtime import ID, IMAGE_ID, OTHER, PAUSE, SANDBOX, WEB, Runtime
from support.waiting import wait_until


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """A runtime that listens."""
    monkeypatch.setattr(engine_module, "RECONNECT_MAX_S", 0.01)
    runtime = Runtime(tmp_path / "cri.sock")  # type: ignore[abstract]  # the rest is not called
    runtime.start()
    yield runtime
    runtime.stop()


@pytest.fixture
def reader(runtime):
    """A started reader, which follows the runtime's events."""
    reader = CriRuntime(str(runtime.path))
    reader.start()
    until(lambda: runtime.followers)
    return reader


def until(condition):
    return wait_until(condition, 20, lambda: "container runtime")


def test_containers_and_their_pods_are_known_at_start(runtime):
    runtime.add()
    reader = CriRuntime(str(runtime.path))
    reader.start()
    until(lambda: reader.get(SANDBOX))
    assert (reader.get(ID), reader.get(SANDBOX)) == (WEB, PAUSE)
    assert reader.settled(ID)
    assert runtime.lookups == []


def start(catalog):
    """Start the engines and wait as a collector does; neither may wait for their answers."""
    starting = threading.Thread(target=lambda: (catalog.start(), catalog.wait_listed()))
    starting.start()
    starting.join(20)
    assert not starting.is_alive(), "the start waits for a runtime's answer"


def test_runtime_that_never_answers_does_not_delay_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LOOKUP_TIMEOUT_S", 120.0)
    path = tmp_path / "hangs.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()  # the kernel accepts, but no program reads
        catalog = Catalog([CriRuntime(str(path))])
        start(catalog)
        assert catalog.get(ID) is None
        assert not catalog.settled(ID)  # events of this container wait, for a bounded time


def test_runtime_that_answers_late_names_the_container_late(runtime, monkeypatch):
    monkeypatch.setattr(module, "_LOOKUP_TIMEOUT_S", 120.0)
    runtime.may_answer.clear()
    runtime.add()
    catalog = Catalog([CriRuntime(str(runtime.path))])
    start(catalog)
    assert catalog.get(ID) is None
    assert catalog.take_late() == []
    threading.Timer(0.6, runtime.may_answer.set).start()
    assert until(catalog.take_late) == [WEB]
    assert catalog.get(ID) == WEB
    assert runtime.lookups == []


def test_created_container_is_known_from_its_event(runtime, reader):
    runtime.emit()
    assert until(lambda: reader.get(ID)) == WEB
    assert until(lambda: reader.get(SANDBOX)) == PAUSE
    assert (runtime.lookups, reader.take_late()) == ([], [])


def test_other_events_add_nothing(runtime, reader):
    runtime.emit(kind=cri.CONTAINER_DELETED_EVENT)
    runtime.emit(kind=cri.CONTAINER_STARTED_EVENT)
    until(runtime.events.empty)
    assert reader.get(ID) is None


def test_unknown_container_is_looked_up_without_blocking(runtime, reader):
    runtime.may_answer.clear()
    runtime.add()
    assert not reader.settled(ID)
    until(lambda: runtime.lookups)
    assert not reader.settled(ID)  # the runtime has not answered, and this call returns
    assert reader.get(ID) is None
    runtime.may_answer.set()
    until(lambda: reader.settled(ID))
    assert reader.get(ID) == WEB
    assert runtime.lookups == [ID]


def test_sandbox_is_looked_up_as_a_pod(runtime, reader):
    runtime.add()
    reader.settled(SANDBOX)
    assert until(lambda: reader.get(SANDBOX)) == PAUSE


def test_unknown_id_stays_unknown(runtime, reader):
    runtime.add()
    reader.settled(OTHER)
    until(lambda: reader.settled(OTHER))
    assert reader.get(OTHER) is None


def test_runtime_without_events_is_asked_for_ids(runtime):
    runtime.has_events = False
    reader = CriRuntime(str(runtime.path))
    reader.start()
    runtime.add()
    assert not reader.settled(ID)
    assert until(lambda: reader.get(ID)) == WEB


def test_runtime_without_events_is_listed_again(runtime, monkeypatch):
    monkeypatch.setattr(module, "_RELIST_S", 0.01)
    runtime.has_events = False
    reader = CriRuntime(str(runtime.path))
    reader.start()
    runtime.add()
    assert until(lambda: reader.get(ID)) == WEB
    assert runtime.lookups == []


def test_image_that_is_an_id_has_its_name(runtime, reader):
    runtime.emit(image=IMAGE_ID)
    assert until(lambda: reader.get(ID)) == WEB
    assert runtime.image_lists == 1


def test_image_without_a_name_is_its_id(runtime, reader):
    runtime.images = {}
    runtime.emit(image=IMAGE_ID)
    assert until(lambda: reader.get(ID)).image == IMAGE_ID


def test_socket_without_cri_is_not_asked_about_ids(runtime, monkeypatch):
    monkeypatch.setattr(module, "_RELIST_S", 0.01)
    runtime.has_cri = False
    reader = CriRuntime(str(runtime.path))
    reader.start()
    until(lambda: reader.settled(ID))
    assert runtime.lookups == []
    runtime.has_cri = True
    runtime.emit()
    assert until(lambda: reader.get(ID)) == WEB


def test_runtime_that_starts_later_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "RECONNECT_MAX_S", 0.01)
    runtime = Runtime(tmp_path / "later.sock")  # type: ignore[abstract]
    reader = CriRuntime(str(runtime.path))
    reader.start()
    assert reader.settled(ID)
    runtime.add()
    runtime.start()
    assert until(lambda: reader.get(ID)) == WEB
    runtime.stop()


def test_container_that_becomes_known_after_a_miss_is_late_once(runtime, reader):
    reader.settled(ID)
    until(lambda: reader.settled(ID))
    assert reader.take_late() == []
    runtime.emit()
    until(lambda: reader.get(ID))
    assert reader.take_late() == [WEB]
    assert reader.take_late() == []
