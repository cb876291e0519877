"""A collector that is killed or stopped, again and again, while marked processes run."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chaos.account import IN_RING_NS
from collector.bpf.maps import open_pinned
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.waiting import eventually
from tetra.v1.bus_pb2 import EventBatch
from tetra.v1.state_pb2 import SavedTable
from tetra.v1.stream_pb2 import GapNotice

pytestmark = pytest.mark.kernel

BIN = Path(sys.executable).parent
TRUE = "/usr/bin/true"
NODE = f"killed-{os.getpid()}"  # a host has one collector of each name
READY_S = 60.0
MARKS = 900
PER_SECOND = 250


@pytest.fixture(scope="module")
def marks_program(tmp_path_factory):
    """The steady load, built."""
    target = tmp_path_factory.mktemp("workloads") / "marks"
    source = Path(__file__).parents[2] / "workloads" / "marks.c"
    subprocess.run(["gcc", "-O2", "-o", target, source], check=True)
    return target


@pytest.fixture(scope="module")
def headers(tmp_path_factory):
    """The cache in which vmlinux.h is generated once for all collectors of this module."""
    return tmp_path_factory.mktemp("cache")


class Collector:
    """tetra-collector as a process, and the spans in which it did not run."""

    def __init__(self, folder, headers, url, **settings):
        self.log = folder / "collector.log"
        self.state = folder / "state"
        self.away = []  # boot clock, ns
        self._env = os.environ | {
            "NODE_NAME": NODE,
            "TETRA_NATS_URL": url,
            "TETRA_STATE_DIR": str(self.state),
            "TETRA_CACHE_DIR": str(headers),
            "TETRA_DOCKER_SOCKET": "",
            "TETRA_LOG_FORMAT": "json",
            **settings,
        }
        self._process = None
        self._starts = 0

    async def start(self):
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                BIN / "tetra-collector", stdout=log, stderr=log, env=self._env
            )
        self._starts += 1

        def ready():
            assert self._process.returncode is None, self.log.read_text()
            return self.logged("ready") >= self._starts

        await eventually(ready, READY_S)
        if self.away:
            self.away[-1] = (self.away[-1][0], time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    async def end(self, number):
        assert self._process.returncode is None, self.log.read_text()
        self.away.append((time.clock_gettime_ns(time.CLOCK_BOOTTIME), 1 << 62))
        self._process.send_signal(number)
        await asyncio.wait_for(self._process.wait(), 30)

    @property
    def process(self):
        return self._process

    def logged(self, event):
        return self.log.read_text().count(f'"event": "{event}"')

    def detach(self):
        done = subprocess.run(
            [BIN / "tetra-collector", "--detach"], env=self._env, capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr


@asynccontextmanager
async def running(collector):
    await collector.start()
    try:
        yield collector
    finally:
        if collector._process.returncode is None:
            await collector.end(signal.SIGTERM)


async def marks_while(marks_program, mark, happens):
    """Run the marks while something happens, and one more; return (number, start, end) of each."""
    process = await asyncio.create_subprocess_exec(
        marks_program, TRUE, mark, "1", str(MARKS), str(PER_SECOND), stdout=subprocess.PIPE
    )
    output, _ = await asyncio.gather(process.communicate(), happens)
    await run(TRUE, mark, str(MARKS + 1))
    return [tuple(map(int, row.split())) for row in output[0].decode().splitlines()]


async def run(*command):
    """Run a command."""
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0


async def marks_reported(gateway, mark):
    """Return (execs, exits, gaps, all events) once the last mark's exit is in the stream."""
    async with asyncio.timeout(60):
        while True:
            await eventually(lambda: gateway.gateway.subscriber.live, READY_S)
            responses = await gateway.read_all(last=10_000_000)
            events = [event for response in responses for event in response.events]
            execs, exits = Counter(), Counter()
            for event in events:
                one = event.process_exec if event.HasField("process_exec") else event.process_exit
                words = one.process.arguments.split()
                if len(words) == 2 and words[0] == mark:
                    counted = execs if event.HasField("process_exec") else exits
                    counted[int(words[1])] += 1
            if exits[MARKS + 1]:
                del execs[MARKS + 1], exits[MARKS + 1]
                gaps = [gap for response in responses for gap in response.gaps]
                return execs, exits, gaps, events
            await asyncio.sleep(0.2)


async def disturb(collector, signals, nats_server=None):
    for number in signals:
        await asyncio.sleep(0.7)
        if nats_server:
            nats_server.stop(kill=True)
            await asyncio.sleep(0.2)
        await collector.end(number)
        await asyncio.sleep(0.1)
        await collector.start()
        if nats_server:
            nats_server.start()


async def begin(gateway):
    """Return a process that sleeps through the whole test."""
    return await asyncio.create_subprocess_exec("/bin/sleep", "600")


async def events_up_to(gateway, mark):
    """Run a process with ``mark`` as its argument; return all events once its exec arrives."""
    await run(TRUE, mark)

    async def found():
        responses = await gateway.read_all(last=10_000_000)
        events = [event for response in responses for event in response.events]
        return any(e.process_exec.process.arguments == mark for e in events) and events

    return await eventually(found, 30)


def execs_reported(events, pid):
    """Return how many execs of the process were reported."""
    return sum(
        event.process_exec.process.pid.value == pid
        for event in events
        if event.HasField("process_exec")
    )


async def assert_all_reported(gateway, marks_program, mark, collector, happens):
    """Assert that every mark was reported once, with its exit, in the order in which it ran."""
    sleeper = await begin(gateway)
    marks = await marks_while(marks_program, mark, happens)
    assert len(marks) == MARKS
    execs, exits, gaps, events = await marks_reported(gateway, mark)
    sleeper.kill()
    await sleeper.wait()
    expected = Counter(range(1, MARKS + 1))
    assert execs == expected, sorted((expected - execs) + (execs - expected))
    assert exits == expected, sorted((expected - exits) + (exits - expected))
    assert execs_reported(events, sleeper.pid) == 1
    order = [
        int(event.process_exec.process.arguments.split()[1])
        for event in events
        if event.HasField("process_exec")
        and event.process_exec.process.arguments.startswith(f"{mark} ")
    ]
    assert order == [*range(1, MARKS + 2)]
    return gaps


async def test_kept_probes_miss_nothing_when_the_collector_is_killed(
    gateway, nats_server, marks_program, headers, bpf_file_system, tmp_path
):
    pins = bpf_file_system / "tetra"
    settings = {"TETRA_KEEP_PROBES": "crash", "TETRA_PIN_DIR": str(pins)}
    async with running(Collector(tmp_path, headers, nats_server.url, **settings)) as collector:
        happens = disturb(collector, [signal.SIGKILL] * 3)
        gaps = await assert_all_reported(gateway, marks_program, "kept-killed", collector, happens)
        assert list(gaps) == []
        assert collector.log.read_text().count('"probes": "taken over"') == 3
        assert [path.name for path in pins.glob("*/*/sched_process_exit")]
        written = [path for path in collector.state.rglob("*") if path.is_file()]
        assert {path.parent.name for path in written} >= {"state", "journal"}
        assert not any(path.stat().st_mode & 0o077 for path in written)
    assert not pins.exists()


async def test_losses_of_a_damaged_stream_are_a_gap_and_numbers_are_not_reused(
    gateway, start_gateway, nats_server, nc, headers, tmp_path
):
    collector = Collector(tmp_path, headers, nats_server.url)
    js, subject = nc.jetstream(), f"tetra.events.{NODE}"

    async def last_message():
        return (await js.stream_info("TETRA_EVENTS")).state.last_seq

    async def one_more():
        await run(TRUE, "before")
        return await last_message() >= 6

    async with running(collector):
        await eventually(one_more, READY_S)
    lost = 0
    for _ in range(3):  # its last messages
        message = await js.get_last_msg("TETRA_EVENTS", subject)
        lost += len(EventBatch.FromString(message.data).events)
        await js.delete_msg("TETRA_EVENTS", message.seq)
    last = EventBatch.FromString((await js.get_last_msg("TETRA_EVENTS", subject)).data)
    end = last.first_sequence + len(last.events) - 1
    before = await last_message()

    async def more_published():
        return await last_message() > before

    async with running(collector):
        await run(TRUE, "after")
        await eventually(more_published, READY_S)
    fresh = await start_gateway()  # the other one has them in memory
    responses = await fresh.read_all(last=10_000_000)
    [gap] = [g for r in responses for g in r.gaps if g.node_name and g.first]
    assert (gap.cause, gap.first, gap.last) == (
        GapNotice.CAUSE_STREAM_DAMAGED, end + 1, end + lost
    )  # fmt: skip


async def test_kept_probes_miss_nothing_when_nats_stops_too(
    gateway, nats_server, marks_program, headers, bpf_file_system, tmp_path
):
    settings = {"TETRA_KEEP_PROBES": "crash", "TETRA_PIN_DIR": str(bpf_file_system / "tetra")}
    async with running(Collector(tmp_path, headers, nats_server.url, **settings)) as collector:
        happens = disturb(collector, [signal.SIGKILL] * 3, nats_server)
        gaps = await assert_all_reported(gateway, marks_program, "kept-nats", collector, happens)
        assert list(gaps) == []


async def test_probes_kept_always_outlive_a_clean_stop_until_detached(
    gateway, nats_server, marks_program, headers, bpf_file_system, tmp_path
):
    pins = bpf_file_system / "tetra"
    settings = {"TETRA_KEEP_PROBES": "always", "TETRA_PIN_DIR": str(pins)}
    async with running(Collector(tmp_path, headers, nats_server.url, **settings)) as collector:
        happens = disturb(collector, [signal.SIGTERM, signal.SIGKILL, signal.SIGTERM])
        gaps = await assert_all_reported(gateway, marks_program, "kept-always", collector, happens)
        assert list(gaps) == []
        code, _, errors = collector.detach()
        assert code == 2
        assert "another collector runs" in errors
    (link,) = pins.glob("*/*/sched_process_exec")
    os.close(open_pinned(link))
    code, output, _ = collector.detach()
    assert (code, output) == (0, f"detached: {link.parent}\n")
    assert not pins.exists()
    assert collector.detach()[:2] == (0, "no probes were kept\n")


async def test_kept_probes_belong_to_one_collector(
    gateway, nats_server, headers, bpf_file_system, tmp_path
):
    settings = {"TETRA_KEEP_PROBES": "crash", "TETRA_PIN_DIR": str(bpf_file_system / "tetra")}
    async with running(Collector(tmp_path, headers, nats_server.url, **settings)) as collector:
        # Elsewhere in the network, where the name that one host has once is free.
        second = await asyncio.create_subprocess_exec(
            "unshare", "--net", BIN / "tetra-collector", env=collector._env,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        _, errors = await second.communicate()
        assert second.returncode == 2
        assert "error: node killed" in errors.decode()
        assert "another collector uses" in errors.decode()
        assert list((bpf_file_system / "tetra").glob("*/*/sched_process_exit"))


async def test_without_kept_probes_only_what_ran_meanwhile_is_missing(
    gateway, nats_server, marks_program, headers, tmp_path
):
    async with running(Collector(tmp_path, headers, nats_server.url)) as collector:
        sleeper = await begin(gateway)
        numbers = [signal.SIGKILL, signal.SIGTERM]
        marks = await marks_while(marks_program, "plain", disturb(collector, numbers))
        execs, exits, gaps, events = await marks_reported(gateway, "plain")
        sleeper.kill()
        await sleeper.wait()
        away = list(collector.away)
    for number, start, end in marks:
        # Records in the ring when the collector is killed are lost with the ring.
        meanwhile = any(start < to and end > gone - IN_RING_NS for gone, to in away)
        assert execs[number] == exits[number] == 1 or meanwhile, number
        assert max(execs[number], exits[number]) <= 1
    assert execs_reported(events, sleeper.pid) == 1
    assert [gap.cause for gap in gaps] == [GapNotice.CAUSE_COLLECTOR_DOWN] * 2
    # Its times: the last event before, and the first that could be recorded again.
    offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for gap, (gone, to) in zip(gaps, away, strict=True):
        start, end = getattr(gap, "from").ToNanoseconds(), gap.to.ToNanoseconds()
        assert gone - 1e9 < start - offset <= gone + 1e8
        assert start < end <= to + offset + 1e8


async def test_processes_of_another_boot_are_reported_again(
    gateway, nats_server, headers, tmp_path
):
    collector = Collector(tmp_path, headers, nats_server.url)
    sleeper = await begin(gateway)
    async with running(collector):
        await events_up_to(gateway, "first")
    async with running(collector):
        events = await events_up_to(gateway, "second")
    assert execs_reported(events, sleeper.pid) == 1  # it was known
    file = collector.state / "processes.pb"
    saved = SavedTable.FromString(file.read_bytes())
    saved.boot_id = "another"
    file.write_bytes(saved.SerializeToString())
    async with running(collector):
        events = await events_up_to(gateway, "third")
    sleeper.kill()
    await sleeper.wait()
    assert execs_reported(events, sleeper.pid) == 2


async def test_a_file_system_without_pins_is_reported_and_probes_work(
    gateway, nats_server, headers, tmp_path
):
    settings = {"TETRA_KEEP_PROBES": "crash", "TETRA_PIN_DIR": str(tmp_path / "no-bpf" / "tetra")}
    async with running(Collector(tmp_path, headers, nats_server.url, **settings)) as collector:
        assert collector.logged("probes not kept: they end with this collector") == 1
        await events_up_to(gateway, "still-reported")
