"""From records to events: a table full of living processes, reused pids, clock steps."""

import base64
from struct import pack

import pytest

from collector import pipeline as module
from collector.metadata.enricher import Enricher
from collector.processes.table import KERNEL_KEY, ContainerInfo, Image, Process, TableStatistics
from support.stages import Stages
from tetragon.events_pb2 import GetEventsResponse
from unit.collector.synthetic import HOST_NS, SECOND, exec_record, exit_record, fork_record

INIT = (1, 1000)  # the parent of the processes that `synthetic` makes
CAPACITY = 4096
PIDS = CAPACITY - 40  # with <kernel>, pid 1 and a few forks they fit into the table
CONTAINER = "c" * 64


def made(table=None, **options):
    """Return stages with <kernel> and pid 1 in the table."""
    stages = Stages(Enricher(HOST_NS, **options), **(table or {}))
    for process in (
        Process(0, KERNEL_KEY[1], KERNEL_KEY, 4, 1, False, Image("<kernel>")),
        Process(*INIT, KERNEL_KEY, 4, 10, False, Image("/sbin/init")),
    ):
        stages.table.add(process, 0.0)
    return stages


@pytest.fixture
def stages():
    """Stages with default settings."""
    return made()


def ktime(round_, pid, what):
    """Return a time of the boot clock: rounds follow each other, and pids within one."""
    return (round_ + 1) * 1000 * SECOND + pid * 1000 + what


def test_full_table_of_living_processes_survives_pid_reuse():
    stages = made({"capacity": CAPACITY, "released_max": CAPACITY // 4})
    events = []
    for round_ in range(2):
        for pid in range(2, PIDS + 2):
            forked, started = ktime(round_, pid, 0), ktime(round_, pid, 1)
            events += stages.handle(
                [
                    fork_record(pid, forked, parent=INIT),
                    exec_record(pid, started, parent=INIT, replaced_ktime_ns=forked),
                ]
            )
        assert len(stages.table.all_living()) == PIDS + 2
        events += stages.handle(
            exit_record(pid, ktime(round_, pid, 1), ktime(round_, PIDS + 2 + pid, 0))
            for pid in range(2, PIDS + 2)
        )
    assert stages.table.statistics == TableStatistics()
    assert len(stages.table) <= stages.table.released_max + 2
    assert len(events) == 2 * 2 * PIDS
    ids = set()
    for at in range(0, len(events), 61):  # a sample: all of them takes a while
        message = GetEventsResponse.FromString(events[at])
        kind = message.WhichOneof("event")
        process = getattr(message, kind).process
        round_ = at // (2 * PIDS)
        name = f"n:{ktime(round_, process.pid.value, 1)}:{process.pid.value}"
        assert base64.b64decode(process.exec_id).decode() == name
        assert getattr(message, kind).parent.binary == "/sbin/init"
        ids.add((kind, process.exec_id))
    assert len(ids) == len(range(0, len(events), 61))


@pytest.mark.parametrize("step_s", [-86_400, -1, 1, 86_400])
def test_clock_step_moves_times_and_no_identity(stages, monkeypatch, step_s):
    offset_ns = [1_700_000_000 * SECOND]
    monkeypatch.setattr(module, "wall_offset_ns", lambda: offset_ns[0])
    events = stages.handle([exec_record(5, 10 * SECOND, parent=INIT)])
    offset_ns[0] += step_s * SECOND
    events += stages.handle([exec_record(6, 11 * SECOND, parent=(5, 10 * SECOND))])
    events += stages.handle([exit_record(5, 10 * SECOND, 12 * SECOND)])
    first, child, end = map(GetEventsResponse.FromString, events)
    # The start time stays as first reported; later events have the time of the stepped clock.
    assert end.process_exit.process == first.process_exec.process
    assert child.process_exec.parent == first.process_exec.process
    assert end.time.ToNanoseconds() == 12 * SECOND + offset_ns[0]
    assert child.time.ToNanoseconds() == 11 * SECOND + offset_ns[0]
    assert end.process_exit.time == end.time


def test_unknown_and_malformed_records_are_counted_and_left_out(stages, capsys):
    bad = [pack("<IQ", 77, 0), exec_record(5, 10)[:40], b"", b"\1", pack("<IQ", 78, 0)]
    events = stages.handle([exec_record(5, 10), *bad, exit_record(5, 10, 20)])
    assert len(events) == 2
    statistics = stages.pipeline.statistics
    assert (statistics.unknown, statistics.malformed) == (2, 3)
    logged = capsys.readouterr().out
    assert logged.count("record of an unknown kind dropped") == 1
    assert logged.count("malformed record dropped") == 1


class SlowContainers:
    """Knows a container only once it is released."""

    def __init__(self):
        self.released = False

    def get(self, full_id):
        return ContainerInfo(full_id, "web", "nginx", "docker") if self.released else None

    def settled(self, full_id):
        return self.released


def test_records_wait_for_a_container_and_keep_their_order():
    containers = SlowContainers()
    stages = made(containers=containers)
    pipeline = stages.pipeline
    inside = exec_record(5, 10, cgroup=CONTAINER.encode())
    events = pipeline.handle([exec_record(4, 9), inside, exec_record(6, 11)])
    events += pipeline.handle([exit_record(6, 11, 12)])
    assert (len(events), pipeline.holds, pipeline.unfinished) == (1, 3, True)
    assert pipeline.release() == []
    containers.released = True
    events += pipeline.release()
    assert pipeline.holds == 0
    parsed = [GetEventsResponse.FromString(event) for event in events]
    assert [e.WhichOneof("event") for e in parsed] == ["process_exec"] * 3 + ["process_exit"]
    assert [e.process_exec.process.pid.value for e in parsed[:3]] == [4, 5, 6]
    assert parsed[1].process_exec.process.container_info.name == "web"


def test_records_wait_for_a_bounded_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("collector.pipeline.time.monotonic", lambda: now[0])
    stages = made(containers=SlowContainers())
    assert stages.pipeline.handle([exec_record(5, 10, cgroup=CONTAINER.encode())]) == []
    now[0] += module.WAIT_S - 0.01
    assert stages.pipeline.release() == []
    now[0] += 0.02
    (event,) = stages.pipeline.release()
    process = GetEventsResponse.FromString(event).process_exec.process
    assert (process.docker, process.HasField("container_info")) == (CONTAINER[:31], False)
