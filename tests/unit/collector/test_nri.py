"""A runtime that calls before it starts a container: NRI over ttrpc, with a runtime of the test."""

import socket
import threading
from struct import Struct

import pytest

from collector.metadata.containers import engine as engine_module
from collector.metadata.containers.catalog import Catalog
from collector.metadata.containers.nri import Nri
from collector.processes.pods import Pod
from collector.processes.table import ContainerInfo
from nri.nri_pb2 import ConfigureRequest, ConfigureResponse, StateChangeEvent
from nri.ttrpc_pb2 import Request, Response
from support.container_engine import engines_end  # noqa: F401
from support.waiting import wait_until

ID = "a" * 64
WEB = ContainerInfo(ID, "web", "nginx:1", "containerd", Pod("shop", "web-1", "u1", (("a", "b"),)))
TRUNK, FRAME = Struct(">II"), Struct(">IIBB")
PLUGIN, RUNTIME = 1, 2
EVENT = StateChangeEvent(
    event=6,
    pod={
        "id": "b", "name": "web-1", "uid": "u1", "namespace": "shop",
        "labels": {"a": "b", "io.kubernetes.pod.name": "web-1"},
    },
    container={
        "id": ID, "name": "web", "annotations": {"io.kubernetes.cri.image-name": "nginx:1"}
    },
)  # fmt: skip


class Runtime:
    """The runtime's end of the socket."""

    def __init__(self, path):
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(20)
        self.peer = None

    def accept(self):
        """Take the next plugin; return its registration, unanswered."""
        self.peer, _ = self._listener.accept()
        self.peer.settimeout(20)
        return self.receive()

    def send(self, connection, stream, kind, message, pieces=1):
        frame = FRAME.pack(len(message), stream, kind, 0) + message
        step = -(-len(frame) // pieces)
        for at in range(0, len(frame), step):
            part = frame[at : at + step]
            self.peer.sendall(TRUNK.pack(connection, len(part)) + part)

    def receive(self):
        """Return (connection, stream, kind, message)."""
        connection, size = TRUNK.unpack(self._exactly(TRUNK.size))
        data = self._exactly(size)
        length, stream, kind, _ = FRAME.unpack_from(data)
        assert length == size - FRAME.size
        return connection, stream, kind, data[FRAME.size :]

    def call(self, method, payload=b"", stream=3, pieces=1):
        """Call the plugin; return its answer."""
        request = Request(service="nri.pkg.api.v1alpha1.Plugin", method=method, payload=payload)
        self.send(PLUGIN, stream, 1, request.SerializeToString(), pieces)
        connection, answered, kind, message = self.receive()
        assert (connection, answered, kind) == (PLUGIN, stream, 2)
        return Response.FromString(message)

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            data += self.peer.recv(size - len(data)) or pytest.fail("the plugin left")
        return data

    def close(self):
        self._listener.close()
        if self.peer:
            self.peer.close()


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "RECONNECT_MAX_S", 0.01)
    runtime = Runtime(tmp_path / "nri.sock")
    yield runtime
    runtime.close()


@pytest.fixture
def catalog(runtime, tmp_path):
    """A catalog whose plugin has registered and been configured."""
    catalog = Catalog([Nri(str(tmp_path / "nri.sock"))])
    catalog.start()
    register(runtime)
    return catalog


def register(runtime):
    """Answer the registration after a call of the runtime's own, as containerd does."""
    connection, stream, kind, message = runtime.accept()
    request = Request.FromString(message)
    assert (connection, kind, request.method) == (RUNTIME, 1, "RegisterPlugin")
    about = ConfigureRequest(runtime_name="containerd").SerializeToString()
    answer = ConfigureResponse.FromString(runtime.call("Configure", about).payload)
    assert answer.events == 1 << 5  # the start of containers alone
    runtime.send(RUNTIME, stream, 2, Response().SerializeToString())
    assert not runtime.call("Synchronize").HasField("status")


def test_container_is_known_before_the_runtime_has_its_answer(runtime, catalog):
    assert not runtime.call("StateChange", EVENT.SerializeToString()).HasField("status")
    assert catalog.get(ID) == WEB


def test_runtime_waits_for_those_who_listen(runtime, catalog):
    may_start, asked = threading.Event(), []

    def listener(full_id):
        asked.append(full_id)
        may_start.wait(20)

    catalog.listen_start(listener)
    answered = []
    payload = EVENT.SerializeToString()
    thread = threading.Thread(target=lambda: answered.append(runtime.call("StateChange", payload)))
    thread.start()
    wait_until(lambda: asked == [ID], 20, lambda: "not asked")
    assert answered == []
    may_start.set()
    thread.join(20)
    assert len(answered) == 1


def test_frames_in_pieces_are_joined(runtime, catalog):
    runtime.call("StateChange", EVENT.SerializeToString(), pieces=7)
    assert catalog.get(ID) == WEB


def test_other_methods_are_refused(runtime, catalog):
    assert runtime.call("CreateContainer").status.code == 12


@pytest.mark.parametrize(
    "data",
    [
        TRUNK.pack(PLUGIN, 1 << 30),
        TRUNK.pack(PLUGIN, FRAME.size) + FRAME.pack(1 << 30, 1, 1, 0),
        TRUNK.pack(PLUGIN, FRAME.size + 1) + FRAME.pack(1, 1, 1, 0) + b"\xff",
        b"",
    ],
    ids=["large trunk frame", "large message", "no message", "end"],
)
def test_broken_connection_is_made_again(runtime, catalog, data):
    runtime.peer.sendall(data)
    runtime.peer.shutdown(socket.SHUT_WR)
    runtime.peer.close()
    register(runtime)
    runtime.call("StateChange", EVENT.SerializeToString())
    assert catalog.get(ID) == WEB


def test_refused_registration_is_tried_again(runtime, tmp_path):
    catalog = Catalog([Nri(str(tmp_path / "nri.sock"))])
    catalog.start()
    _, stream, _, _ = runtime.accept()
    refusal = Response(status={"code": 2, "message": "no"})
    runtime.send(RUNTIME, stream, 2, refusal.SerializeToString())
    runtime.peer.close()
    register(runtime)
