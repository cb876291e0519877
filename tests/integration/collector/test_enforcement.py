"""Policies that act, by a whole collector: fork bombs, limits, spared services."""

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from integration.collector.test_killed import (  # noqa: F401
    READY_S,
    TRUE,
    Collector,
    headers,
    run,
    running,
)
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.nats_server import NATS_SERVER
from support.waiting import eventually
from tetragon.tetragon_pb2 import KprobeAction

pytestmark = pytest.mark.kernel

KILL = """\
kind: TracingPolicy
metadata: {{name: kill}}
spec:
  kprobes:
  - call: sys_openat
    args: [{{index: 1, type: string}}]
    selectors:
    - matchArgs: [{{index: 1, operator: Prefix, values: ["{prefix}/"]}}]
      matchActions: [{{action: Sigkill}}]
"""
GENERATIONS = 10
# Each process makes two, then opens its file; who comes back from that writes a byte.
BOMB = """\
import os, sys
folder, generations = sys.argv[1], int(sys.argv[2])
signal = os.fork()
if signal == 0:
    generation = 0
    while generation < generations - 1:
        generation += 1
        if os.fork() == 0:
            continue
        if os.fork() == 0:
            continue
        break
    try:
        os.open(f"{folder}/{os.getpid()}", os.O_RDONLY)
    except OSError:
        pass
    os.write(1, b"alive\\n")
    os._exit(0)
"""


@pytest.fixture
def kill(tmp_path):
    """A folder whose files kill who opens them, and the setting with the policy that does it."""
    policies, evil = tmp_path / "policies", tmp_path / "evil"
    policies.mkdir()
    evil.mkdir()
    (policies / "kill.yaml").write_text(KILL.format(prefix=evil))
    return evil, {"TETRA_TRACING_POLICY_DIR": str(policies)}


def opener(folder):
    """Open a file of the folder; return the process's exit code."""
    code = f"import os\ntry:\n os.open('{folder}/x', 0)\nexcept OSError: pass"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode


async def events_of(gateway, policy):
    responses = await gateway.read_all(last=10_000_000)
    found = [
        event.process_kprobe
        for response in responses
        for event in response.events
        if event.process_kprobe.policy_name == policy
    ]
    lost = sum(
        number
        for response in responses
        for loss in response.losses
        for cause, number in loss.lost.by_cause.items()
        if cause.startswith(f"policy:{policy}:")
    )
    return found, lost


async def test_every_process_of_a_fork_bomb_is_killed_and_counted(
    gateway,
    nats_server,
    headers,  # noqa: F811
    tmp_path,
    kill,
):
    evil, settings = kill
    collector = Collector(tmp_path, headers, nats_server.url, **settings)
    async with running(collector):
        await eventually(lambda: collector.logged("policy loaded"), READY_S)
        bomb = await asyncio.create_subprocess_exec(
            sys.executable, "-c", BOMB, evil, str(GENERATIONS), stdout=subprocess.PIPE
        )
        # The pipe ends when the last process that holds it has ended.
        survivors = await asyncio.wait_for(bomb.stdout.read(), 120)
        await bomb.wait()
        wanted = 2**GENERATIONS - 1

        async def all_there():
            await run(TRUE)  # its events carry the losses, if there were any
            found, lost = await events_of(gateway, "kill")
            return found if len(found) + lost >= wanted else None

        found = await eventually(all_there, READY_S)
        assert collector.process.returncode is None
    assert survivors == b""
    assert {one.action for one in found} == {KprobeAction.KPROBE_ACTION_SIGKILL}
    assert len({one.process.pid.value for one in found}) == len(found)
    assert nats_server._process.poll() is None


async def test_limit_of_signals_falls_back_to_monitor_and_logs_it(
    gateway,
    nats_server,
    headers,  # noqa: F811
    tmp_path,
    kill,
):
    evil, settings = kill
    settings["TETRA_POLICY_SIGNALS_PER_MINUTE"] = "3"
    collector = Collector(tmp_path, headers, nats_server.url, **settings)
    async with running(collector):
        await eventually(lambda: collector.logged("policy loaded"), READY_S)
        ends = [await asyncio.to_thread(opener, evil) for _ in range(5)]
        await eventually(lambda: collector.logged("policy fell back to monitor mode"), READY_S)

        async def all_there():
            found, _ = await events_of(gateway, "kill")
            return found if len(found) >= 5 else None

        found = await eventually(all_there, READY_S)
    assert ends == [-9, -9, -9, 0, 0]
    assert [list(one.tags) for one in found] == [
        [], [], [], ["enforcement:fell-back-to-monitor"], [],
    ]  # fmt: skip


SERVICES = """\
kind: TracingPolicy
metadata: {{name: services}}
spec:
  kprobes:
  - call: sys_openat
    args: [{{index: 1, type: string}}]
    selectors:
    - matchPIDs: [{{operator: In, values: [{pids}]}}]
      matchActions: [{{action: Sigkill}}, {{action: NoPost}}]
"""


@pytest.mark.parametrize("spare", [True, False])
async def test_collector_is_spared_as_it_is_set(
    nats_server,
    headers,  # noqa: F811
    tmp_path,
    spare,
):
    policies = tmp_path / "policies"
    policies.mkdir()
    settings = {"TETRA_TRACING_POLICY_DIR": str(policies), "TETRA_POLICY_SPARE": str(spare)}
    collector = Collector(tmp_path, headers, nats_server.url, **settings)
    async with running(collector):
        pids = f"{collector.process.pid}, {nats_server._process.pid}"
        (policies / "services.yaml").write_text(SERVICES.format(pids=pids))
        if not spare:
            assert await asyncio.wait_for(collector.process.wait(), READY_S) == -signal.SIGKILL
            return
        await eventually(lambda: collector.logged("policy loaded"), READY_S)
        # A second document makes the collector open files while the first one is in force.
        (policies / "other.yaml").write_text(KILL.format(prefix="/none"))
        await eventually(lambda: collector.logged("policy loaded") == 2, READY_S)
        assert collector.process.returncode is None
        assert nats_server._process.poll() is None
    assert json.loads(collector.log.read_text().splitlines()[-1])["event"] == "stopped"


BROKER = """\
kind: TracingPolicy
metadata: {{name: broker}}
spec:
  kprobes:
  - call: sys_openat
    selectors:
    - matchBinaries: [{{operator: In, values: ["{binary}"]}}]
      matchActions: [{{action: {action}}}, {{action: NoPost}}]
"""


@pytest.mark.parametrize("action", ["Sigkill", "Signal, argSig: 15", "Signal, argSig: 19"])
async def test_broker_that_restarts_under_a_policy_on_its_binary_is_spared(
    nats_server,
    headers,  # noqa: F811
    tmp_path,
    action,
):
    policies = tmp_path / "policies"
    policies.mkdir()
    binary = NATS_SERVER.resolve()
    (policies / "broker.yaml").write_text(BROKER.format(binary=binary, action=action))
    settings = {"TETRA_TRACING_POLICY_DIR": str(policies)}
    collector = Collector(tmp_path, headers, nats_server.url, **settings)
    async with running(collector):
        await eventually(lambda: collector.logged("policy loaded"), READY_S)
        await asyncio.to_thread(nats_server.stop)
        await asyncio.to_thread(nats_server.start)  # fails unless it accepts connections
        # The same program under another name is none of the stack's: the policy is in force.
        other = tmp_path / "other-broker"
        shutil.copy(binary, other)
        (policies / "broker.yaml").write_text(BROKER.format(binary=other, action="Sigkill"))
        await eventually(lambda: collector.logged("policy replaced"), READY_S)
        done = await asyncio.to_thread(subprocess.run, [other, "-c", "/none"], check=False)
        assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("keep", "end", "stays"),
    [
        ("never", signal.SIGKILL, False),
        ("crash", signal.SIGKILL, True),
        ("crash", signal.SIGTERM, False),
        ("always", signal.SIGTERM, True),
    ],
)
async def test_enforcement_outlives_the_collector_as_it_is_set(
    nats_server,
    headers,  # noqa: F811
    bpf_file_system,
    tmp_path,
    kill,
    keep,
    end,
    stays,
):
    evil, settings = kill
    settings |= {
        "TETRA_KEEP_ENFORCEMENT": keep,
        "TETRA_PIN_DIR": str(bpf_file_system / "tetra"),
    }
    collector = Collector(tmp_path, headers, nats_server.url, **settings)
    async with running(collector):
        await eventually(lambda: collector.logged("policy loaded"), READY_S)
        assert opener(evil) == -9
        await collector.end(end)
        assert opener(evil) == (-9 if stays else 0)
        # The next collector's policy replaces the one that was kept.
        (tmp_path / "policies" / "kill.yaml").unlink()
        await collector.start()
        if stays:
            await eventually(lambda: collector.logged("kept enforcement ended"), READY_S)
        assert opener(evil) == 0
    if keep == "always":
        assert collector.detach()[0] == 0


OWN = """\
kind: TracingPolicy
metadata: {{name: own}}
spec:
  kprobes:
  - call: sys_connect
    selectors:
    - matchPIDs: [{{operator: In, values: [{pid}]}}]
      matchActions: [{{action: GetUrl, argUrl: "{url}"}}]
"""


async def test_collector_starts_again_under_kept_enforcement_that_matches_it(
    nats_server,
    headers,  # noqa: F811
    bpf_file_system,
    tmp_path,
    kill,
):
    """Its files are forbidden: it is spared by programs of the killed one, which know no pid."""
    _, settings = kill
    settings |= {"TETRA_KEEP_ENFORCEMENT": "crash", "TETRA_PIN_DIR": str(bpf_file_system / "tetra")}
    collector = Collector(tmp_path, headers, nats_server.url, **settings)
    state = collector.state
    (tmp_path / "policies" / "kill.yaml").write_text(KILL.format(prefix=state))
    async with running(collector):
        await eventually(lambda: collector.logged("policy loaded"), READY_S)
        assert opener(state) == -9
        await collector.end(signal.SIGKILL)
        assert opener(state) == -9
        await collector.start()
        await eventually(lambda: collector.logged("kept enforcement ended"), READY_S)
        assert opener(state) == -9  # by its own programs


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    paths: ClassVar[list[str]] = []


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        _Server.paths.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("hosts", ["127.0.0.1", ""])
async def test_event_causes_a_request_to_an_allowed_host_only(
    nats_server,
    headers,  # noqa: F811
    tmp_path,
    kill,
    hosts,
):
    evil, settings = kill
    settings["TETRA_POLICY_REQUEST_HOSTS"] = hosts
    _Server.paths.clear()
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f'GetUrl, argUrl: "http://127.0.0.1:{server.server_address[1]}/seen"'
        text = KILL.format(prefix=evil).replace("Sigkill", url)
        (tmp_path / "policies" / "kill.yaml").write_text(text)
        collector = Collector(tmp_path, headers, nats_server.url, **settings)
        try:
            async with running(collector):
                if not hosts:
                    await eventually(lambda: collector.logged("policy not loaded"), READY_S)
                    assert "requests to 127.0.0.1 are not allowed" in collector.log.read_text()
                    return
                await eventually(lambda: collector.logged("policy loaded"), READY_S)
                assert opener(evil) == 0
                await eventually(lambda: _Server.paths, READY_S)
        finally:
            server.shutdown()
            thread.join()
    assert _Server.paths == ["/seen"]


async def test_events_of_the_collector_itself_cause_no_requests(
    gateway,
    nats_server,
    headers,  # noqa: F811
    tmp_path,
    kill,
):
    """A request connects, so each would cause the next one."""
    evil, settings = kill
    settings["TETRA_POLICY_REQUEST_HOSTS"] = "127.0.0.1"
    _Server.paths.clear()
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        text = KILL.format(prefix=evil).replace("Sigkill", f'GetUrl, argUrl: "{url}/other"')
        (tmp_path / "policies" / "kill.yaml").write_text(text)
        collector = Collector(tmp_path, headers, nats_server.url, **settings)
        try:
            async with running(collector):
                own = OWN.format(pid=collector.process.pid, url=f"{url}/own")
                (tmp_path / "policies" / "own.yaml").write_text(own)
                await eventually(lambda: collector.logged("policy loaded") == 2, READY_S)

                async def own_connections():
                    opener(evil)  # another process: its request makes the collector connect
                    return (await events_of(gateway, "own"))[0]

                await eventually(own_connections, READY_S)
                count = len(_Server.paths)
                opener(evil)
                await eventually(lambda: len(_Server.paths) > count, READY_S)
        finally:
            server.shutdown()
            thread.join()
    assert set(_Server.paths) == {"/other"}


async def test_event_causes_a_lookup_by_the_set_resolver(
    nats_server,
    headers,  # noqa: F811
    tmp_path,
    kill,
):
    evil, settings = kill
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.bind(("127.0.0.1", 0))
        resolver.settimeout(READY_S)
        settings |= {
            "TETRA_POLICY_REQUEST_HOSTS": ".example.org",
            "TETRA_POLICY_RESOLVER": f"127.0.0.1:{resolver.getsockname()[1]}",
        }
        text = KILL.format(prefix=evil).replace("Sigkill", "DnsLookup, argFqdn: a.example.org")
        (tmp_path / "policies" / "kill.yaml").write_text(text)
        collector = Collector(tmp_path, headers, nats_server.url, **settings)
        async with running(collector):
            await eventually(lambda: collector.logged("policy loaded"), READY_S)
            assert opener(evil) == 0
            query = await asyncio.to_thread(resolver.recv, 512)
    assert query[12:] == b"\x01a\x07example\x03org\0\0\x01\0\x01"
