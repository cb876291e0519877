"""A disk and container engines that answer late stall neither the ring nor the start."""

import asyncio
import os
import subprocess
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from uuid import uuid4

import pytest

from collector.build import build
from collector.metadata.containers import cri
from collector.settings import Settings
from support.cri_runtime import Runtime
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.waiting import eventually

pytestmark = pytest.mark.kernel

ANSWER_S = 3.0
LIVES = 3000
CONTAINERS = 3
RING_BYTES = 1 << 20  # less than the storm: a processor may be away for a second, not for all of it
TRUE = "/usr/bin/true"


class SlowEngine(ThreadingMixIn, UnixStreamServer):
    """Knows every container, after three seconds."""

    daemon_threads = True
    asked = 0


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self):
        if self.path.startswith("/events"):
            return  # no event ever
        self.server.asked += 1  # type: ignore[attr-defined]  # SlowEngine
        time.sleep(ANSWER_S)
        self.send_response(200)
        self.end_headers()
        with suppress(BrokenPipeError):
            self.wfile.write(b"[]")

    def address_string(self):
        return "unix"

    def log_message(self, *_):
        """Print nothing."""


@pytest.fixture
def slow_engine(tmp_path):
    path = tmp_path / "engine.sock"
    with SlowEngine(str(path), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server, path
        server.shutdown()


@pytest.fixture
def slow_disk(monkeypatch):
    """Every sync takes three seconds; return the list of threads that had to wait for one."""
    sync, waited = os.fsync, []

    def slow(fd):
        waited.append(threading.current_thread().name)
        time.sleep(ANSWER_S)
        sync(fd)

    monkeypatch.setattr(os, "fsync", slow)
    return waited


@pytest.fixture
def container_cgroups():
    """Cgroups with names as an engine gives them, in the hierarchy that the collector looks at."""
    v1 = Path("/sys/fs/cgroup/memory")
    root = v1 if v1.is_dir() else Path("/sys/fs/cgroup")
    made = [root / (uuid4().hex + uuid4().hex) for _ in range(CONTAINERS)]
    for path in made:
        path.mkdir()
    yield made
    for path in made:
        path.rmdir()


def storm(cgroup, mark):
    """Start many short processes in a cgroup, as fast as they run."""
    script = (
        f"echo $$ > {cgroup}/cgroup.procs; "
        f"i=0; while [ $i -lt {LIVES // CONTAINERS} ]; do {TRUE} {mark} $i; i=$((i+1)); done; "
        f"echo $$ > {cgroup.parent}/cgroup.procs"
    )
    return subprocess.Popen(["/bin/sh", "-c", script])


@pytest.mark.timeout(300)
async def test_storm_beside_slow_disk_and_engine_loses_nothing(
    tmp_path, nats_server, gateway, slow_engine, slow_disk, container_cgroups
):
    engine, socket = slow_engine
    chosen: dict[str, Any] = {
        "node_name": f"stalls-{os.getpid()}",
        "nats_url": nats_server.url,
        "state_dir": tmp_path / "state",
        "cache_dir": tmp_path / "cache",
        "docker_socket": str(socket),
        "ring_size_bytes": RING_BYTES,
        "spool_sync": "always",
    }
    settings = Settings(**chosen)
    nats_server.stop()
    collector = await build(settings)
    task = asyncio.create_task(collector.run())
    mark = uuid4().hex
    storms = [storm(cgroup, mark) for cgroup in container_cgroups]
    await eventually(lambda: all(one.poll() is not None for one in storms), 120)
    await eventually(lambda: "spool_0" in slow_disk, 60)  # the disk was in use meanwhile
    nats_server.start()
    await eventually(lambda: collector.publisher.statistics.published > 2 * LIVES, 60)
    await eventually(lambda: not collector.publisher.waiting, 120)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    assert collector.losses.counters().by_cause == {}
    responses = await gateway.read_all(last=1_000_000)
    execs = [
        event.process_exec.process
        for response in responses
        for event in response.events
        if event.HasField("process_exec") and mark in event.process_exec.process.arguments
    ]
    reported = [process.arguments for process in execs if process.binary == TRUE]
    expected = [f"{mark} {n}" for n in range(LIVES // CONTAINERS) for _ in range(CONTAINERS)]
    assert sorted(reported) == sorted(expected)
    assert {process.docker for process in execs if process.docker} == {
        cgroup.name[:31] for cgroup in container_cgroups
    }
    assert engine.asked >= CONTAINERS
    assert "MainThread" not in slow_disk, "a sync ran on the event loop"


@pytest.fixture
def late_runtime(tmp_path, container_cgroups):
    """A CRI runtime that does not answer yet, with a container that is one of the cgroups."""
    runtime = Runtime(tmp_path / "cri.sock")  # type: ignore[abstract]  # the rest is not called
    runtime.add()
    runtime.containers[0].id = container_cgroups[0].name
    runtime.may_answer.clear()
    runtime.start()
    yield runtime
    runtime.may_answer.set()
    runtime.stop()


@pytest.fixture
def shell(container_cgroups):
    """A shell that runs in a container since before the collector; it runs what it reads."""
    with subprocess.Popen(["/bin/sh"], stdin=subprocess.PIPE, text=True, bufsize=1) as process:
        (container_cgroups[0] / "cgroup.procs").write_text(str(process.pid))
        yield process
        assert process.stdin is not None
        print(f"echo $$ > {container_cgroups[0].parent}/cgroup.procs; exit", file=process.stdin)


@pytest.mark.timeout(120)
async def test_runtime_that_answers_late_does_not_delay_the_start(
    tmp_path, nats_server, gateway, late_runtime, shell, monkeypatch
):
    monkeypatch.setattr(cri, "_LOOKUP_TIMEOUT_S", 100.0)  # a start that waits fails the test
    chosen: dict[str, Any] = {
        "node_name": f"late-{os.getpid()}",
        "nats_url": nats_server.url,
        "state_dir": tmp_path / "state",
        "cache_dir": tmp_path / "cache",
        "cri_socket": str(late_runtime.path),
        "docker_socket": "",
        "podman_socket": "",
    }
    mark = uuid4().hex
    collector = await build(Settings(**chosen))  # returns although the runtime has not answered
    task = asyncio.create_task(collector.run())

    def images():
        name = late_runtime.containers[0].id[:31]
        return [one.image for one in collector.table if one.image.docker == name]

    try:
        await eventually(images)
        print(f"{TRUE} {mark}-before", file=shell.stdin)
        await eventually(lambda: any(f"{mark}-before" in one.arguments for one in images()))
        assert {one.container for one in images()} == {None}
        late_runtime.may_answer.set()
        await eventually(lambda: all(one.container for one in images()), 30)
        print(f"{TRUE} {mark}-after", file=shell.stdin)

        found = []
        while not found:
            found = [
                event.process_exec
                for response in await gateway.read_all(last=1_000_000)
                for event in response.events
                if event.process_exec.process.arguments == f"{mark}-after"
            ]
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert (found[0].process.pod.namespace, found[0].process.pod.name) == ("shop", "web-1")
    assert found[0].parent.pod.name == "web-1"  # of a process that was reported before the answer
