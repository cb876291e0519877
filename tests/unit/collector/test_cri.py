"""Containers and pods from a CRI runtime that answers on a unix socket."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue

import grpc
import pytest

from collector.metadata.containers import cri as module
from collector.metadata.containers import engine as engine_module
from collector.metadata.containers.cri import CriRuntime
from collector.processes.pods import Pod
from collector.processes.table import ContainerInfo
from cri import runtime_pb2 as cri
from cri.runtime_pb2_grpc import (
    ImageServiceServicer,
    RuntimeServiceServicer,
    add_ImageServiceServicer_to_server,
    add_RuntimeServiceServicer_to_server,
)
from support.container_engine import engines_end  # noqa: F401
from support.waiting import wait_until

ID, SANDBOX, OTHER = "a" * 64, "b" * 64, "c" * 64
IMAGE_ID = "sha256:" + "5" * 64
POD = Pod("shop", "web-1", "u1", (("app", "web"),))
WEB = ContainerInfo(ID, "nginx", "nginx:1", "containerd", POD)
PAUSE = ContainerInfo(SANDBOX, "", "", "containerd", POD)
LABELS = {"app": "web", "io.kubernetes.pod.name": "web-1", "io.kubernetes.pod.uid": "u1"}
METADATA = cri.PodSandboxMetadata(name="web-1", namespace="shop", uid="u1")


class Runtime(RuntimeServiceServicer, ImageServiceServicer):
    """Answers as containerd does; a test changes its attributes at any time."""

    def __init__(self, path):
        self.path = path
        self.containers, self.sandboxes, self.images = [], [], {IMAGE_ID: "nginx:1"}
        self.events = SimpleQueue()
        self.has_events, self.has_cri = True, True
        self.followers = self.image_lists = 0
        self.lookups = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.stopped = threading.Event()
        self._server = None

    def start(self):
        self._server = grpc.server(ThreadPoolExecutor(8))
        add_RuntimeServiceServicer_to_server(self, self._server)
        add_ImageServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix://{self.path}")
        self._server.start()

    def stop(self):
        self.stopped.set()
        self._server.stop(None).wait()

    def add(self, image="nginx:1"):
        """Make a pod with one container."""
        self.sandboxes.append(cri.PodSandbox(id=SANDBOX, metadata=METADATA, labels=LABELS))
        self.containers.append(
            cri.Container(
                id=ID, pod_sandbox_id=SANDBOX, metadata=cri.ContainerMetadata(name="nginx"),
                image=cri.ImageSpec(image=image), image_ref=IMAGE_ID,
            )
        )  # fmt: skip

    def emit(self, kind=cri.CONTAINER_CREATED_EVENT, image="nginx:1"):
        status = cri.ContainerStatus(
            id=ID, metadata=cri.ContainerMetadata(name="nginx"), image=cri.ImageSpec(image=image)
        )
        sandbox = cri.PodSandboxStatus(id=SANDBOX, metadata=METADATA, labels=LABELS)
        self.events.put(
            cri.ContainerEventResponse(
                container_id=ID, container_event_type=kind, pod_sandbox_status=sandbox,
                containers_statuses=[status],
            )
        )  # fmt: skip

    def Version(self, request, context):
        if not self.has_cri:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown service")
        return cri.VersionResponse(runtime_name="containerd", runtime_version="1.7.24")

    def ListContainers(self, request, context):
        wanted = request.filter.id
        if wanted:
            self.lookups.append(wanted)
        self.may_answer.wait(10)
        found = [c for c in self.containers if wanted in ("", c.id)]
        return cri.ListContainersResponse(containers=found)

    def ListPodSandbox(self, request, context):
        wanted = request.filter.id
        return cri.ListPodSandboxResponse(items=[s for s in self.sandboxes if wanted in ("", s.id)])

    def ListImages(self, request, context):
        self.image_lists += 1
        images = [cri.Image(id=i, repo_tags=[name]) for i, name in self.images.items()]
        return cri.ListImagesResponse(images=images)

    def GetContainerEvents(self, request, context):
        if not self.has_events:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method")
        self.followers += 1
        # A reader that is cut off follows again at once: the flag ends that one as well.
        while not self.stopped.is_set():
            with suppress(Empty):
                yield self.events.get(timeout=0.05)


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
    assert (reader.get(ID), reader.get(SANDBOX)) == (WEB, PAUSE)
    assert reader.settled(ID)
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
    assert reader.settled(ID)
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
