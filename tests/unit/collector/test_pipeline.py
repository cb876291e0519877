"""From records to events: a table full of living processes, pids that come round, clocks."""

import base64

import pytest

from collector import pipeline as module
from collector.events.process import Encoder
from collector.metadata.enricher import Enricher
from collector.pipeline import Pipeline
from collector.processes.cache import KERNEL_KEY, Image, Process, ProcessCache
from tetragon.events_pb2 import GetEventsResponse
from unit.collector.synthetic import HOST_NS, SECOND, exec_record, exit_record, fork_record

INIT = (1, 1000)  # the parent of what `synthetic` makes
PIDS = 65_000  # with <kernel> and pid 1 they fit into the table's default of 65,536


@pytest.fixture
def events():
    """Serialized, in order."""
    return []


@pytest.fixture
def pipeline(events):
    """Stages with default settings, and <kernel> and pid 1 in the table."""
    cache = ProcessCache()
    for process in (
        Process(0, KERNEL_KEY[1], KERNEL_KEY, 4, 1, False, Image("<kernel>")),
        Process(*INIT, KERNEL_KEY, 4, 10, False, Image("/sbin/init")),
    ):
        cache.add(process, 0.0)
    return Pipeline(cache, Enricher(HOST_NS), Encoder("n", "", HOST_NS), events.append)


def ktime(round_, pid, what):
    """Return a time of the boot clock: rounds follow each other, and pids within one."""
    return (round_ + 1) * 1000 * SECOND + pid * 1000 + what


def test_sixty_four_thousand_alive_and_each_pid_comes_round(pipeline, events):
    for round_ in range(2):
        for pid in range(2, PIDS + 2):
            forked, started = ktime(round_, pid, 0), ktime(round_, pid, 1)
            pipeline.handle(
                [
                    fork_record(pid, forked, parent=INIT),
                    exec_record(pid, started, parent=INIT, replaced_ktime_ns=forked),
                ]
            )
        assert len(pipeline.cache.all_living()) == PIDS + 2
        pipeline.handle(
            exit_record(pid, ktime(round_, pid, 1), ktime(round_, PIDS + 2 + pid, 0))
            for pid in range(2, PIDS + 2)
        )
    assert pipeline.cache.statistics == type(pipeline.cache.statistics)()
    assert len(pipeline.cache) <= pipeline.cache.released_max + 2
    assert len(events) == 2 * 2 * PIDS
    ids = set()
    for at in range(0, len(events), 1000):  # a sample: all of them takes a while
        told = GetEventsResponse.FromString(events[at])
        kind = told.WhichOneof("event")
        process = getattr(told, kind).process
        round_ = at // (2 * PIDS)
        name = f"n:{ktime(round_, process.pid.value, 1)}:{process.pid.value}"
        assert base64.b64decode(process.exec_id).decode() == name
        assert getattr(told, kind).parent.binary == "/sbin/init"
        ids.add((kind, process.exec_id))
    assert len(ids) == len(range(0, len(events), 1000))


@pytest.mark.parametrize("step_s", [-86_400, -1, 1, 86_400])
def test_a_calendar_clock_that_is_set_moves_times_and_no_name(
    pipeline, events, monkeypatch, step_s
):
    offset_ns = [1_700_000_000 * SECOND]
    monkeypatch.setattr(module, "wall_offset_ns", lambda: offset_ns[0])
    pipeline.handle([exec_record(5, 10 * SECOND, parent=INIT)])
    offset_ns[0] += step_s * SECOND
    pipeline.handle([exec_record(6, 11 * SECOND, parent=(5, 10 * SECOND))])
    pipeline.handle([exit_record(5, 10 * SECOND, 12 * SECOND)])
    first, child, end = map(GetEventsResponse.FromString, events)
    # The process started when it was said to have; what happens now happens by the clock of now.
    assert end.process_exit.process == first.process_exec.process
    assert child.process_exec.parent == first.process_exec.process
    assert end.time.ToNanoseconds() == 12 * SECOND + offset_ns[0]
    assert child.time.ToNanoseconds() == 11 * SECOND + offset_ns[0]
    assert end.process_exit.time == end.time
