"""``last``: the last N events that pass the filters, exactly."""

import time

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from support.feeder import Feeder, exec_event
from support.gateways import numbers_in
from tetra.v1 import stream_pb2
from tetragon import events_pb2

SECOND_NS = 1_000_000_000


def filter_of(**fields):
    return [events_pb2.Filter(**fields)]


def stamp(time_ns):
    made = Timestamp()
    made.FromNanoseconds(time_ns)
    return made


async def publish_family(feeder, count):
    """Publish ``count`` execs, each the child of the one before."""
    events = []
    for number in range(feeder.sequence + 1, feeder.sequence + count + 1):
        event = events_pb2.GetEventsResponse.FromString(exec_event(number, node=feeder.node))
        event.process_exec.parent.pid.value = number - 1
        events.append(event.SerializeToString())
    await feeder.send(feeder.batch(events))


@pytest.mark.parametrize("count", [1, 3, 10, 11, 100, 5000])
async def test_last_counts_what_passes_the_filter(gateway, feeder, count):
    numbers = await feeder.publish(1000, per_batch=7)
    wanted = [n for n in numbers if str(n).endswith("07")]
    rare = filter_of(arguments_regex=["^.*07$"])
    got = await gateway.read_all(last=count, allow_list=rare)
    assert numbers_in(*got) == wanted[-count:]


async def test_filter_without_a_match_sends_no_event(gateway, feeder):
    await feeder.publish(500)
    assert numbers_in(*await gateway.read_all(last=3, allow_list=filter_of(pid=[77_777]))) == []


async def test_events_that_arrive_while_the_past_is_read_are_not_among_the_last(
    gateway, feeder, monkeypatch
):
    numbers = await feeder.publish(50)
    bounds = gateway.gateway.streams.history.bounds
    late = Feeder(feeder.nc, "late")

    async def bounds_then_more():
        found = await bounds()
        await late.publish(20)
        return found

    monkeypatch.setattr(gateway.gateway.streams.history, "bounds", bounds_then_more)
    assert numbers_in(*await gateway.read_all(last=3)) == numbers[-3:]


async def test_duplicate_batch_counts_once(gateway, feeder):
    await feeder.publish(20)
    again = feeder.batch([exec_event(n) for n in range(21, 31)])
    for _ in range(3):
        await feeder.send(again, identified=False)
    await feeder.publish(5)
    for count in (5, 6, 15, 16, 20, 35):
        assert numbers_in(*await gateway.read_all(last=count)) == list(range(1, 36))[-count:]


async def test_batch_that_came_late_counts(gateway, feeder):
    await feeder.publish(10)
    late = feeder.batch([exec_event(n) for n in range(11, 21)])
    await feeder.publish(10)
    await feeder.send(late)
    assert len(numbers_in(*await gateway.read_all(last=25))) == 25
    assert sorted(numbers_in(*await gateway.read_all(last=30))) == list(range(1, 31))


async def test_descendants_are_counted_as_they_are_sent(gateway, feeder):
    await publish_family(feeder, 40)
    other = Feeder(feeder.nc, "other")
    await other.publish(30)
    family = filter_of(pid_set=[5])
    got = await gateway.read_all(last=10, allow_list=family, nodes=["n1"])
    assert numbers_in(*got) == list(range(31, 41))
    everything = await gateway.read_all(last=1000, allow_list=family, nodes=["n1"])
    assert numbers_in(*everything) == list(range(5, 41))


async def test_last_before_a_time(gateway, feeder):
    now_ns = time.time_ns()
    for first in range(1, 101, 10):
        numbers = range(first, first + 10)
        events = [exec_event(n, time_ns=now_ns - (200 - n) * SECOND_NS) for n in numbers]
        await feeder.send(feeder.batch(events))
    until = stamp(now_ns - 150 * SECOND_NS)  # of number 50
    got = await gateway.read_all(last=12, until=until)
    assert numbers_in(*got) == list(range(39, 51))


async def test_progress_is_reported_while_the_past_is_read(gateway, feeder, monkeypatch):
    monkeypatch.setattr("gateway.sender.CURSOR_EVERY_S", 0.0)
    await feeder.publish(200, per_batch=1)
    nothing = filter_of(pid=[77_777])
    responses = await gateway.read_all(last=3, allow_list=nothing)
    scanned = [one for one in responses if not one.HasField("cursor")]
    assert scanned
    assert [one.progress.done for one in scanned] == sorted(one.progress.done for one in scanned)
    assert {one.progress.total for one in scanned} == {200}
    read = await gateway.read_all(after=stream_pb2.Cursor(), allow_list=nothing)
    steps = [one.progress.done for one in read if one.HasField("progress")]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, 200)
