"""Equal events of a window become one with a count, and none is lost or counted twice."""

import asyncio

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from support.waiting import READY_S, eventually
from tetra.v1.stream_pb2 import Cursor, StreamEventsRequest
from tetragon.events_pb2 import AggregationOptions, Filter, GetEventsRequest, GetEventsResponse


def event(number, binary, node="n1"):
    made = GetEventsResponse(node_name=node)
    made.time.FromSeconds(1_760_000_000 + number)
    process = made.process_exec.process
    process.binary, process.exec_id = binary, f"{node}:{number}"
    process.pid.value = number
    return made.SerializeToString()


async def publish(feeder, *binaries):
    first = feeder.sequence + 1
    events = [event(first + n, binary) for n, binary in enumerate(binaries)]
    await feeder.send(feeder.batch(events))


def window(seconds, most=0):
    size = Duration()
    size.FromNanoseconds(round(seconds * 1e9))
    return AggregationOptions(window_size=size, channel_buffer_size=most)


def counted(events):
    """Return binary, number of equal events, and the process id of the first."""
    return [
        (one.process_exec.process.binary,
         one.aggregation_info.count if one.HasField("aggregation_info") else 1,
         one.process_exec.process.pid.value)
        for one in events
    ]  # fmt: skip


async def read(call, count):
    async with asyncio.timeout(READY_S):
        return [await call.read() for _ in range(count)]


async def test_get_events_counts_equal_events_of_a_window(gateway, feeder):
    call = await gateway.subscribe(aggregation_options=window(1))
    await publish(feeder, "a", "b", "a", "a", "c")
    # No event comes any more: the window ends by the clock.
    assert counted(await read(call, 3)) == [("a", 3, 1), ("b", 1, 2), ("c", 1, 5)]
    await publish(feeder, "b")
    assert counted(await read(call, 1)) == [("b", 1, 6)]


async def test_full_window_ends_early(gateway, feeder):
    call = await gateway.subscribe(aggregation_options=window(3600, most=2))
    await publish(feeder, "a", "a", "b", "a", "b", "c")
    # The second different event fills it.
    assert counted(await read(call, 4)) == [("a", 2, 1), ("b", 1, 3), ("a", 1, 4), ("b", 1, 5)]


async def test_gateway_that_stops_sends_what_it_holds(gateway, feeder):
    call = await gateway.subscribe(aggregation_options=window(3600))
    await publish(feeder, "a", "a")
    await eventually(lambda: [feed.position for feed in gateway.gateway.streams.feeds()] == [2])
    gateway.gateway.streams.stop()
    assert counted(await read(call, 1)) == [("a", 2, 1)]


async def test_past_is_aggregated_by_its_own_time(gateway, feeder):
    await publish(feeder, "a", "b", "a")
    await asyncio.sleep(1.1)  # NATS stores the next ones in another window
    await publish(feeder, "a", "a")
    responses = await gateway.read_all(since=Timestamp(seconds=1), aggregation_options=window(1))
    found = [counted(one.events) for one in responses if one.events]
    assert found == [[("a", 2, 1), ("b", 1, 2)], [("a", 2, 4)]]


async def test_cursor_is_behind_whole_windows(gateway, feeder):
    for _ in range(4):
        await publish(feeder, "a", "b", "b")
    request = {"aggregation_options": window(3600, most=2), "max_batch_events": 2}
    responses = await gateway.read_all(after=Cursor(), **request)
    for stop in range(len(responses)):
        seen = [one for response in responses[: stop + 1] for one in response.events]
        rest = await gateway.read_all(after=responses[stop].cursor, **request)
        seen += [one for response in rest for one in response.events]
        numbers = {}
        for binary, number, _ in counted(seen):
            numbers[binary] = numbers.get(binary, 0) + number
        assert numbers == {"a": 4, "b": 8}


async def test_filters_come_first_and_losses_are_reported_as_they_are(gateway, feeder):
    feeder.loss.by_cause["ring"] = 1
    await publish(feeder, "a", "b")
    feeder.loss.by_cause["ring"] = 5
    feeder.sequence += 3
    await publish(feeder, "a", "b")
    responses = await gateway.read_all(
        after=Cursor(), aggregation_options=window(60), allow_list=[Filter(binary_regex=["a"])]
    )
    assert counted(one for response in responses for one in response.events) == [("a", 2, 1)]
    assert [gap.count for response in responses for gap in response.gaps] == [3]
    losses = [dict(loss.lost.by_cause) for one in responses for loss in one.losses]
    assert losses == [{"ring": 4}]


@pytest.mark.parametrize("seconds", [-1, 3601])
async def test_invalid_windows_are_refused(gateway, seconds):
    call = await gateway.subscribe(aggregation_options=window(0))  # none: events as they are
    call.cancel()
    for method, kind in (
        (gateway.sensors.GetEvents, GetEventsRequest),
        (gateway.events.StreamEvents, StreamEventsRequest),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await method(kind(aggregation_options=window(seconds))).read()
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_cursor_of_a_notice_is_behind_nothing_that_is_held(gateway, feeder):
    call = await gateway.stream(aggregation_options=window(3600))
    await publish(feeder, "a", "b")
    feeder.sequence += 3
    await publish(feeder, "a")
    async with asyncio.timeout(READY_S):
        response = await call.read()
        while not response.gaps:
            response = await call.read()
    rest = await gateway.read_all(after=response.cursor, aggregation_options=window(3600))
    assert counted(one for part in rest for one in part.events) == [("a", 2, 1), ("b", 1, 2)]
