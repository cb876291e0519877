"""Real probes and the collector's own stages, without a bus: events come back parsed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from collector.bpf import kernel, probes
from collector.bpf.rate import Rate
from collector.metadata.enricher import Enricher
from collector.metadata.redaction import Redactor
from collector.processes.procfs import host_namespaces
from kernel.policy_fixtures import node, opened_file, policies  # noqa: F401  # fixtures
from support.host_compiler import host_compiler  # noqa: F401  # of a guest
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.stages import Stages
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process

PROCFS = Path("/proc")
NODE = "test-node"


class Watch:
    """The collector from ring to event, driven by the test."""

    def __init__(self, opened: probes.Probes, rate: Rate | None = None, **options: Any) -> None:
        self.opened = opened
        self.rate = rate  # of execs and forks of one cgroup; None: no limit
        ancestors = bool(options.pop("ancestors", False))
        enricher = Enricher(host_namespaces(PROCFS), **options)
        self.stages = Stages(enricher, NODE, with_ancestors=ancestors)
        self.table = self.stages.table
        self.bootstrap = self._parse(self.stages.bootstrap(opened.processes))
        self.events: list[GetEventsResponse] = []

    def _parse(self, events: list[bytes]) -> list[GetEventsResponse]:
        return [GetEventsResponse.FromString(event) for event in events]

    def begin(self) -> Watch:
        """Forget what was reported before: pids are used again while the tests run."""
        self.pump()
        self.events.clear()
        return self

    def pump(self) -> None:
        """Handle the records in the ring."""
        while records := self.opened.ring.drain():
            self.feed(records)

    def feed(self, records: list[bytes], offset_ns: int | None = None) -> None:
        """Handle records that were read from the ring."""
        self.events += self._parse(self.stages.handle(records, offset_ns))

    def until_exec(self, pid: int, timeout_s: float = 10.0) -> Process:
        """Return the process of the first exec of ``pid``."""
        deadline = time.monotonic() + timeout_s
        while not (found := execs_of(self.events, pid)):
            assert time.monotonic() < deadline, f"no exec of {pid}"
            time.sleep(0.002)
            self.pump()
        process: Process = found[0].process
        return process

    def until_exit(self, *pids: int, timeout_s: float = 10.0) -> list[GetEventsResponse]:
        """Return all events of ``pids`` once each of them has ended."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.pump()
            ended = {e.process_exit.process.pid.value for e in self.events if is_exit(e)}
            if ended >= set(pids):
                return [e for e in self.events if process_of(e).pid.value in pids]
            assert time.monotonic() < deadline, f"no exit of {set(pids) - ended}"
            time.sleep(0.002)

    def run(self, *argv: Any, **options: Any) -> tuple[int, list[int], list[Any]]:
        """Run a command; return its pid, the pids it printed, and the events of all of them."""
        child = subprocess.Popen(list(argv), stdout=subprocess.PIPE, **options)
        output, _ = child.communicate(timeout=60)
        printed = [int(word) for word in output.split() if word.isdigit()]
        return child.pid, printed, self.until_exit(child.pid, *printed)


def is_exit(event: GetEventsResponse) -> bool:
    """Return whether the event is an exit."""
    return event.HasField("process_exit")


def process_of(event: GetEventsResponse) -> Process:
    """Return the event's process."""
    return (event.process_exit if is_exit(event) else event.process_exec).process


def execs_of(events: list[GetEventsResponse], pid: int) -> list[Any]:
    """Return the process_exec messages of ``pid``, in order."""
    return [e.process_exec for e in events if not is_exit(e) and process_of(e).pid.value == pid]


def exits_of(events: list[GetEventsResponse], pid: int) -> list[Any]:
    """Return the process_exit messages of ``pid``, in order."""
    return [e.process_exit for e in events if is_exit(e) and process_of(e).pid.value == pid]


def _watch(
    cache: Path, enable: tuple[str, ...], throttle: Rate | None = None, **options: Any
) -> Generator[Watch, None, None]:
    info = kernel.detect(cache)
    folder = probes.bpf_folder()
    flags = probes.compiler_flags(
        info, ring_size_bytes=16 << 20, process_map_entries=65536, enable=enable, throttle=throttle
    )
    opened = asyncio.run(probes.open_probes(info, flags, folder))
    try:
        yield Watch(opened, throttle, **options)
    finally:
        opened.close()
        opened.free()


@pytest.fixture(scope="session")
def headers(tmp_path_factory) -> Path:
    """A folder for vmlinux.h."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def plain_of_session(headers) -> Generator[Watch, None, None]:
    yield from _watch(headers, ())


@pytest.fixture
def plain(plain_of_session) -> Watch:
    """The collector with default settings."""
    begun: Watch = plain_of_session.begin()
    return begun


@pytest.fixture
def limited(headers) -> Generator[Watch, None, None]:
    """The collector with a rate for each cgroup, and a short time until it ends."""
    yield from _watch(headers, ("CRED",), Rate(10, 1_000_000_000, hold_ns=1_500_000_000))


@pytest.fixture
def full(full_of_session) -> Watch:
    """The collector with everything on that can be on."""
    begun: Watch = full_of_session.begin()
    return begun


@pytest.fixture(scope="session")
def full_of_session(headers) -> Generator[Watch, None, None]:
    yield from _watch(
        headers,
        ("CRED", "NS", "ENVS"),
        ancestors=True,
        credentials=True,
        namespaces=True,
        environment=True,
        show_user=True,
        argv=True,
        redactor=Redactor('{"redact": ["--password=(\\\\S+)"]}'),
    )


@pytest.fixture(scope="session")
def lives(tmp_path_factory) -> str:
    """The workload program, built."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: make setup")
    target = tmp_path_factory.mktemp("workloads") / "lives"
    source = Path(__file__).parents[1] / "workloads" / "lives.c"
    subprocess.run(["gcc", "-O1", "-pthread", "-o", target, source], check=True)
    target.parent.chmod(0o755)
    return str(target)
