"""Container names and images from an engine that answers over HTTP on a unix socket."""

import time
from types import SimpleNamespace

import pytest

from collector.metadata.containers import docker as docker_module
from collector.metadata.containers import engine as module
from collector.metadata.containers.docker import Docker
from collector.processes.table import ContainerInfo
from support.container_engine import ContainerEngine, engines_end  # noqa: F401
from support.waiting import wait_until

ID, OTHER = "a" * 64, "b" * 64
WEB = ContainerInfo(ID, "web", "nginx:1", "docker")


@pytest.fixture
def clock(monkeypatch):
    """The clock of the lookups, which stands still until a test moves it."""
    now = SimpleNamespace(s=100.0)
    clocks = SimpleNamespace(monotonic=lambda: now.s, sleep=time.sleep)
    monkeypatch.setattr(module, "time", clocks)
    monkeypatch.setattr(module, "RECONNECT_MAX_S", 0.01)
    return now


@pytest.fixture
def engine(tmp_path, clock):
    """An engine that listens."""
    engine = ContainerEngine(tmp_path / "engine.sock")
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def docker(engine):
    """A started reader of the engine, which follows its events."""
    docker = Docker(str(engine.path))
    docker.start()
    until(lambda: engine.followers)
    return docker


def until(condition):
    return wait_until(condition, 20, lambda: "container engine")


def test_containers_are_known_at_start(engine, clock):
    engine.add(ID, "web", "nginx:1")
    docker = Docker(str(engine.path))
    docker.start()
    docker.wait_listed(clock.s + 20)
    assert docker.get(ID) == WEB
    assert docker.settled(ID)
    assert docker.get(OTHER) is None
    assert (engine.lookups, docker.take_late()) == ([], [])


def test_created_container_is_known_from_its_event(engine, docker):
    engine.emit(ID, "web", "nginx:1")
    assert until(lambda: docker.get(ID)) == WEB
    assert docker.settled(ID)
    assert (engine.lookups, docker.take_late()) == ([], [])


def test_renamed_container_has_its_new_name(engine, docker):
    engine.add(ID, "web", "nginx:1")
    engine.emit(ID, "web", "nginx:1")
    engine.emit(ID, "shop", "nginx:1", action="rename")
    until(lambda: docker.get(ID) and docker.get(ID).name == "shop")


def test_unknown_container_is_looked_up_without_blocking(engine, docker):
    engine.may_answer.clear()
    engine.add(ID, "web", "nginx:1")
    assert not docker.settled(ID)
    until(lambda: engine.lookups)
    # The engine has not answered, and these calls return.
    assert not docker.settled(ID)
    assert docker.get(ID) is None
    engine.may_answer.set()
    until(lambda: docker.settled(ID))
    assert docker.get(ID) == WEB
    assert engine.lookups == [ID]


def test_container_that_is_not_found_is_looked_up_three_times(engine, docker, clock):
    for _ in range(6):
        docker.settled(ID)
        until(lambda: docker.settled(ID))
        clock.s += module.LOOKUP_EVERY_S
    assert docker.settled(ID)
    assert engine.lookups == [ID] * 3


def test_lookups_of_a_container_are_a_second_apart(engine, docker, clock):
    assert not docker.settled(ID)
    until(lambda: docker.settled(ID))
    clock.s += 0.9
    assert docker.settled(ID)
    clock.s += 0.2
    assert not docker.settled(ID)
    until(lambda: len(engine.lookups) == 2)


def test_container_that_becomes_known_after_a_miss_is_late_once(engine, docker):
    docker.settled(ID)
    until(lambda: docker.settled(ID))
    assert docker.take_late() == []
    engine.emit(ID, "web", "nginx:1")
    until(lambda: docker.get(ID))
    assert docker.take_late() == [WEB]
    assert docker.take_late() == []


def test_slow_answer_makes_a_container_late(engine, docker):
    engine.may_answer.clear()
    engine.add(ID, "web", "nginx:1")
    docker.settled(ID)
    until(lambda: engine.lookups)
    assert docker.take_late() == []
    engine.may_answer.set()
    assert until(docker.take_late) == [WEB]


def test_engine_that_does_not_answer_in_time_is_a_miss(engine, docker, monkeypatch):
    monkeypatch.setattr(docker_module, "_LOOKUP_TIMEOUT_S", 0.02)
    engine.may_answer.clear()
    docker.settled(ID)
    until(lambda: docker.settled(ID))
    assert docker.get(ID) is None


@pytest.mark.parametrize(
    ("status", "answer"),
    [(200, b""), (200, b"no JSON"), (200, b"null"), (200, b"[1]"), (200, b"{}"),
     (200, b'[{"Names": ["/web"]}]'), (200, b'[{"Id": ["a"]}]'),
     (200, b'[{"Id": "c", "Names": 7}]'), (200, b"\xff"), (500, b"[]"), (200, b"[" * 100_000)],
    ids=lambda one: one[:12].decode(errors="replace") if isinstance(one, bytes) else f"{one}",
)  # fmt: skip
def test_malformed_answer_does_not_end_the_reader(engine, clock, status, answer):
    engine.status, engine.answer = status, answer
    docker = Docker(str(engine.path))
    docker.start()
    docker.settled(ID)
    until(lambda: docker.settled(ID))
    assert docker.get(ID) is None
    engine.status, engine.answer = 200, None
    engine.add(ID, "web", "nginx:1")
    clock.s += module.LOOKUP_EVERY_S
    assert not docker.settled(ID)
    assert until(lambda: docker.get(ID)) == WEB


@pytest.mark.parametrize(
    "line",
    [b"no JSON\n", b"[]\n", b'{"Actor": null}\n', b'{"Actor": {"ID": ["a"]}}\n', b"\xff\n",
     b"[" * 100_000 + b"\n"],
    ids=lambda line: line[:12].decode(errors="replace").strip(),
)  # fmt: skip
def test_malformed_event_does_not_end_the_reader(engine, docker, line):
    engine.events.put(line)
    until(lambda: engine.followers == 2)
    engine.events.put(None)  # the first stream may have been waiting for this one
    engine.emit(ID, "web", "nginx:1")
    engine.emit(ID, "web", "nginx:1")
    assert until(lambda: docker.get(ID)) == WEB


def test_event_without_an_id_is_ignored(engine, docker):
    engine.events.put(b'{"Type": "container"}\n')
    engine.emit(ID, "web", "nginx:1")
    until(lambda: docker.get(ID))
    assert engine.followers == 1


def test_engine_that_starts_later_is_found(tmp_path, clock):
    engine = ContainerEngine(tmp_path / "engine.sock")
    docker = Docker(str(engine.path))
    docker.start()
    assert docker.settled(ID)  # there is nothing to ask
    engine.add(ID, "web", "nginx:1")
    engine.start()
    assert until(lambda: docker.get(ID)) == WEB
    engine.stop()


def test_without_a_socket_no_container_is_found():
    docker = Docker("")
    docker.start()
    assert (docker.get(ID), docker.settled(ID)) == (None, True)


def test_container_made_while_the_events_were_cut_is_known(engine, docker):
    engine.events.put(None)
    engine.add(ID, "web", "nginx:1")
    assert until(lambda: docker.get(ID)) == WEB
    assert engine.lookups == []
