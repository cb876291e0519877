"""Real gRPC servers on loopback, and the real command in a process of its own."""

import os
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import pytest

from tetra.v1.plans_pb2_grpc import PolicyPlansServicer, add_PolicyPlansServicer_to_server
from tetra.v1.policies_pb2_grpc import PoliciesServicer, add_PoliciesServicer_to_server
from tetra.v1.stream_pb2 import Cursor, ListNodesResponse, StreamEventsResponse
from tetra.v1.stream_pb2_grpc import EventStreamServicer, add_EventStreamServicer_to_server
from tetragon.events_pb2 import GetEventsResponse
from tetragon.sensors_pb2 import GetDebugResponse, GetInfoResponse, GetVersionResponse
from tetragon.sensors_pb2_grpc import (
    FineGuidanceSensorsServicer,
    add_FineGuidanceSensorsServicer_to_server,
)
from tetragon.tetragon_pb2 import GetHealthStatusResponse, HealthStatus


def make_event(pid, node="node1", *, status=None):
    event = GetEventsResponse(node_name=node)
    event.time.FromNanoseconds(1_767_225_600_000_000_000 + pid)
    body = event.process_exec if status is None else event.process_exit
    if status is not None:
        body.status = status
    body.process.pid.value = pid
    body.process.binary = "/usr/bin/true"
    body.process.arguments = str(pid)
    body.process.user_name = "root"
    return event


@pytest.fixture(name="make_event")
def make_event_fixture():
    """Make an exec event, or an exit event where a status is given."""
    return make_event


class PlainTetragon(FineGuidanceSensorsServicer):
    """Serves the public API alone."""

    def __init__(self, events):
        self.events = events
        self.requests = []
        self.level = 4

    def GetEvents(self, request, context):
        self.requests.append(request)
        yield from self.events

    def GetVersion(self, request, context):
        return GetVersionResponse(version="v9.9.9")

    def GetHealth(self, request, context):
        return GetHealthStatusResponse(
            health_status=[HealthStatus(event=1, status=1, details="running")]
        )

    def GetInfo(self, request, context):
        info = GetInfoResponse(name="tetra-gateway", version="v9.9.9")
        info.conf.add(key="listen-address")
        info.probes.add(Name="ring-buffer").Enabled.value = True
        return info

    def GetDebug(self, request, context):
        return GetDebugResponse(level=self.level)

    def SetDebug(self, request, context):
        self.level = request.level
        return GetDebugResponse(level=self.level)


class Gateway(EventStreamServicer):
    """Serves a fixed stream of batches; message ``n`` of the stream holds ``batches[n - 1]``."""

    def __init__(self, batches, nodes=()):
        self.batches = batches
        self.nodes = nodes
        self.snapshot = []  # events of processes that run
        self.requests = []
        self.break_after = None  # responses until the connection is cut
        self.pause_s = 0.0  # between responses
        self.notices = StreamEventsResponse()
        self.refuse = None  # details of an INVALID_ARGUMENT
        self.released = threading.Event()
        self.scan = None  # messages read and their total: reported until `scanned` is set
        self.scanned = threading.Event()

    def StreamEvents(self, request, context):
        self.requests.append(request)
        if self.refuse:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.refuse)
        while self.scan and not self.scanned.wait(0.1) and context.is_active():
            done, total = self.scan
            yield StreamEventsResponse(progress={"done": done, "total": total})
        at, index = request.after.stream_sequence, request.after.index
        if request.snapshot and self.snapshot:
            at, index = len(self.batches) + 1, 0
        yield StreamEventsResponse(cursor=Cursor(stream_sequence=at, index=index))
        for sent, event in enumerate(self.snapshot if request.snapshot else (), start=1):
            here = Cursor(stream_sequence=at, index=index)
            yield StreamEventsResponse(events=[event], cursor=here)
            self._may_break(context, sent)
        for sent, number in enumerate(range(max(at, 1), len(self.batches) + 1), start=1):
            batch = self.batches[number - 1]
            skip = index if number == at else 0
            if skip >= len(batch):
                continue
            yield StreamEventsResponse(
                events=batch[skip:],
                cursor=Cursor(stream_sequence=number, index=len(batch)),
                losses=self.notices.losses,
                gaps=self.notices.gaps,
            )
            self._may_break(context, sent)
        if not request.no_follow:
            self.released.wait(120)  # longer than a test waits

    def _may_break(self, context, sent):
        time.sleep(self.pause_s)
        if self.break_after is not None and sent >= self.break_after:
            self.break_after = None
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    def ListNodes(self, request, context):
        return ListNodesResponse(nodes=self.nodes)


@pytest.fixture
def serve():
    """Start servers: ``serve(servicer, ...)`` returns the address."""
    servers = []

    def start(*servicers, credentials=None):
        server = grpc.server(futures.ThreadPoolExecutor(8))
        for servicer in servicers:
            if isinstance(servicer, Gateway):
                add_EventStreamServicer_to_server(servicer, server)
            elif isinstance(servicer, PoliciesServicer):
                add_PoliciesServicer_to_server(servicer, server)
            elif isinstance(servicer, PolicyPlansServicer):
                add_PolicyPlansServicer_to_server(servicer, server)
            else:
                add_FineGuidanceSensorsServicer_to_server(servicer, server)
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servers.append((server, servicers))
        return f"127.0.0.1:{port}"

    yield start
    for server, servicers in servers:
        for servicer in servicers:
            if isinstance(servicer, Gateway | PoliciesServicer):
                servicer.released.set()
        server.stop(0).wait(30)


@pytest.fixture
def gateway_of():
    """Make a `Gateway` servicer."""
    return Gateway


@pytest.fixture
def plain_tetragon_of():
    """Make a `PlainTetragon` servicer."""
    return PlainTetragon


def environment(**changes):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TETRA_", "NO_COLOR", "LC_"))}
    return {**kept, "LANG": "C.UTF-8", "TERM": "xterm", **changes}


COMMAND = [sys.executable, "-m", "cli.main"]


@pytest.fixture(scope="session")
def tetra_command():
    """How ``tetra`` is called."""
    return COMMAND


@pytest.fixture(scope="session")
def tetra_environment():
    """Make an environment with no settings of tetra except the given ones."""
    return environment


@pytest.fixture
def tetra():
    """Run ``tetra`` to its end; returns the completed process."""

    def run(*args, stdin=subprocess.DEVNULL, input=None, **env):
        given = {"input": input.encode()} if input is not None else {"stdin": stdin}
        done = subprocess.run(
            [*COMMAND, *args], capture_output=True, timeout=30, env=environment(**env), **given
        )
        done.stdout = done.stdout.decode()
        done.stderr = done.stderr.decode()
        return done

    return run


@pytest.fixture
def start_tetra():
    """Start ``tetra``; it is killed at the end if it still runs."""
    running = []

    def start(*args, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        env = environment(**options.pop("env", {}))
        process = subprocess.Popen(
            [*COMMAND, *args],
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=options.pop("stderr", subprocess.PIPE),
            env=env,
            **options,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait(30)
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
