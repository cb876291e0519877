"""StreamEvents against a real NATS: any start, cursors that resume, and what is missing."""

import asyncio
import time

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from support.feeder import START_NS, Feeder, exec_event
from support.gateways import numbers_in, read_numbers
from support.waiting import eventually
from tetra.v1 import bus_pb2, stream_pb2
from tetragon import events_pb2


def at(time_ns):
    stamp = Timestamp()
    stamp.FromNanoseconds(time_ns)
    return stamp


async def read_events(call, count):
    """Return responses until they have ``count`` events."""
    responses: list[stream_pb2.StreamEventsResponse] = []
    while len(numbers_in(*responses)) < count:
        responses.append(await call.read())
    return responses


def gaps_in(responses):
    return [gap for response in responses for gap in response.gaps]


async def test_first_response_has_a_cursor_and_no_delay(gateway):
    async with asyncio.timeout(10):  # no event is needed
        call = await gateway.stream()
    call.cancel()


async def test_live_events_arrive_in_batches(gateway, feeder):
    call = await gateway.stream()
    numbers = await feeder.publish(2000, per_batch=100)
    responses = await read_events(call, 2000)
    assert numbers_in(*responses) == numbers
    assert len(responses) <= 20


@pytest.mark.parametrize("count", [0, 1, 10, 15, 99, 100, 1000])
async def test_last_gives_the_last_events(gateway, feeder, count):
    numbers = await feeder.publish(100, per_batch=10)
    if count:
        got = numbers_in(*await gateway.read_all(last=count))
        assert got == numbers[-count:]
    else:
        assert numbers_in(*await gateway.read_all(last=0)) == []


async def test_last_counts_events_of_the_chosen_nodes_only(gateway, nc):
    one, two = Feeder(nc, "one"), Feeder(nc, "two")
    for _ in range(30):
        await one.publish(3)
        await two.publish(5)
    got = await gateway.read_all(last=7, nodes=["one"])
    assert numbers_in(*got) == list(range(84, 91))


async def test_every_cursor_resumes_at_the_next_event(gateway, feeder):
    numbers = await feeder.publish(60, per_batch=10)
    responses = await gateway.read_all(after=stream_pb2.Cursor(), max_batch_events=7)
    assert numbers_in(*responses) == numbers
    seen = []
    for response in responses:
        assert len(response.events) <= 7
        seen += numbers_in(response)
        rest = await gateway.read_all(after=response.cursor)
        assert seen + numbers_in(*rest) == numbers


async def test_cursor_of_a_filtered_stream_is_after_the_last_event_filtered(gateway, feeder):
    await feeder.publish(100)
    nothing = [events_pb2.Filter(pid=[100_000])]
    responses = await gateway.read_all(after=stream_pb2.Cursor(), allow_list=nothing)
    assert numbers_in(*responses) == []
    assert numbers_in(*await gateway.read_all(after=responses[-1].cursor)) == []


async def test_replay_of_50_000_events_across_a_gateway_restart(start_gateway, nc):
    first = await start_gateway()
    feeder = Feeder(nc)
    base_ns = time.time_ns() - 50_000 * 1_000_000
    for part in range(100):
        numbers = range(part * 500 + 1, part * 500 + 501)
        await feeder.send(
            feeder.batch([exec_event(n, time_ns=base_ns + n * 1_000_000) for n in numbers])
        )
    whole = list(range(1, 50_001))
    call = await first.stream(after=stream_pb2.Cursor())
    responses = [await call.read() for _ in range(3)]
    seen = numbers_in(*responses)
    await first.gateway.server.stop()

    second = await start_gateway(window_bytes=1 << 20)
    rest = await second.read_all(after=responses[-1].cursor)
    assert seen + numbers_in(*rest) == whole
    since = await second.read_all(since=at(base_ns + 30_000 * 1_000_000))
    assert numbers_in(*since) == whole[29_999:]
    between = await second.read_all(
        since=at(base_ns + 20_000 * 1_000_000), until=at(base_ns + 25_000 * 1_000_000)
    )
    assert numbers_in(*between) == whole[19_999:25_000]
    assert numbers_in(*await second.read_all(last=12_345)) == whole[-12_345:]


async def test_since_in_the_future_waits(gateway, feeder):
    await feeder.publish(3)
    call = await gateway.stream(since=at(time.time_ns() + 1_000_000_000))
    late = time.time_ns() + 2_000_000_000
    await feeder.send(feeder.batch([exec_event(1), exec_event(2, time_ns=late)]))
    assert await read_numbers(call, 1) == [2]


async def test_until_ends_an_idle_stream_on_time(gateway, feeder, monkeypatch):
    monkeypatch.setattr("gateway.sender.GRACE_NS", 200_000_000)
    until_ns = time.time_ns() + 300_000_000
    call = await gateway.stream(until=at(until_ns))
    await feeder.send(
        feeder.batch([exec_event(1, time_ns=until_ns), exec_event(2, time_ns=until_ns + 1)])
    )
    rest: list[stream_pb2.StreamEventsResponse] = []
    while (response := await call.read()) is not grpc.aio.EOF:
        rest.append(response)
    assert numbers_in(*rest) == [1]
    assert time.time_ns() >= until_ns


async def test_snapshot_joins_live_events_without_a_hole(gateway, feeder):
    await feeder.publish(5)
    feeder.alive = [exec_event(number) for number in (1, 3)]
    await feeder.answer()
    await gateway.gateway.fleet.describe()

    answer = feeder._answer

    async def answer_late(message):
        if not bus_pb2.ControlRequest.FromString(message.data).snapshot:
            return
        # On their way while the snapshot is taken: 6 is in it, 7 is not.
        batch = feeder.batch([exec_event(6), exec_event(7)])
        feeder.sequence -= 1
        feeder.alive.append(exec_event(6))
        await answer(message)
        feeder.sequence += 1
        await feeder.send(batch)

    await feeder.be_silent()
    feeder._answer = answer_late
    await feeder.answer()
    call = await gateway.stream(snapshot=True)
    await feeder.publish(1)
    assert await read_numbers(call, 5) == [1, 3, 6, 7, 8]


async def test_nodes_are_chosen(gateway, nc):
    feeders = [Feeder(nc, name) for name in ("a", "b.c", "d")]
    call = await gateway.stream(nodes=["a", "b.c"])
    for feeder in feeders:
        await feeder.publish(10)
    await feeders[0].publish(10)
    events = [event for response in await read_events(call, 30) for event in response.events]
    assert {event.node_name for event in events} == {"a", "b.c"}


async def test_response_stays_under_a_megabyte(gateway, feeder):
    call = await gateway.stream()
    numbers = await feeder.publish(20, per_batch=5, argument_bytes=150_000)
    responses = await read_events(call, 20)
    assert numbers_in(*responses) == numbers
    assert max(response.ByteSize() for response in responses) < 1_000_000


async def test_missing_numbers_are_reported(gateway, feeder):
    call = await gateway.stream()
    await feeder.publish(3)
    lost = feeder.batch([exec_event(number) for number in range(4, 9)])
    await feeder.publish(2)
    responses = await read_events(call, 5)
    [gap] = gaps_in(responses)
    assert (gap.cause, gap.node_name, gap.count) == (
        stream_pb2.GapNotice.CAUSE_MISSING_SEQUENCE, "n1", 5,
    )  # fmt: skip
    await feeder.send(lost)  # late is better than never, and is no gap
    assert await read_numbers(call, 5) == [4, 5, 6, 7, 8]


async def test_batch_published_again_after_the_duplicate_window_is_delivered_once(gateway, feeder):
    call = await gateway.stream()
    batch = feeder.batch([exec_event(number) for number in (1, 2, 3)])
    for _ in range(2):
        await feeder.send(batch, identified=False)
    await feeder.publish(1)
    assert await read_numbers(call, 4) == [1, 2, 3, 4]


async def test_losses_are_reported_as_differences(gateway, feeder):
    call = await gateway.stream()
    feeder.loss.by_cause["kernel_exec"] = 10
    await feeder.publish(1)
    feeder.loss.by_cause["kernel_exec"] = 13
    feeder.loss.by_cause["spool"] = 2
    await feeder.publish(1)
    await feeder.publish(1)
    responses = await read_events(call, 3)
    [loss] = [loss for response in responses for loss in response.losses]
    assert (loss.node_name, loss.lost.by_cause) == ("n1", {"kernel_exec": 3, "spool": 2})


async def test_collector_that_was_down_is_reported(gateway, feeder):
    call = await gateway.stream()
    await feeder.publish(1)
    feeder.start_ns = START_NS + 10**9
    await feeder.publish(1)
    responses = await read_events(call, 2)
    [gap] = gaps_in(responses)
    assert gap.cause == stream_pb2.GapNotice.CAUSE_COLLECTOR_DOWN
    assert gap.to.ToNanoseconds() == START_NS + 10**9


async def test_what_aged_out_is_reported_with_its_count(gateway, feeder, nc):
    await feeder.publish(100)
    await nc.jetstream().purge_stream("TETRA_EVENTS", seq=8)
    gateway.gateway.streams.broadcaster.restart(10)  # as after a restart of the gateway
    responses = await gateway.read_all(after=stream_pb2.Cursor(stream_sequence=3))
    assert numbers_in(*responses) == list(range(71, 101))
    [gap] = gaps_in(responses)
    assert (gap.cause, gap.count) == (stream_pb2.GapNotice.CAUSE_AGED_OUT, 5)
    beyond = await gateway.read_all(after=stream_pb2.Cursor(stream_sequence=1_000_000))
    assert [gap.cause for gap in gaps_in(beyond)] == [stream_pb2.GapNotice.CAUSE_AGED_OUT]
    assert numbers_in(*beyond) == list(range(71, 101))


async def test_a_cursor_of_another_stream_misses_nothing_of_this_one(gateway, feeder, nc):
    """The new stream has grown beyond the place by the time the client comes back."""
    await feeder.publish(50)
    old = (await gateway.read_all(last=10))[-1].cursor
    assert old.stored_ns
    await nc.jetstream().delete_stream("TETRA_EVENTS")
    feeder.sequence = 0
    numbers = await feeder.publish(100)
    responses = await gateway.read_all(after=old)
    assert numbers_in(*responses) == numbers
    assert stream_pb2.GapNotice.CAUSE_AGED_OUT in {gap.cause for gap in gaps_in(responses)}


@pytest.mark.parametrize("per_batch", [1, 7, 30])
async def test_a_cursor_of_this_stream_is_known_again(gateway, start_gateway, feeder, per_batch):
    numbers = await feeder.publish(60, per_batch=per_batch)
    read, other = 0, await start_gateway()
    for response in await gateway.read_all(after=stream_pb2.Cursor(), max_batch_events=4):
        read += len(response.events)
        cursor = response.cursor
        assert cursor.stored_ns or not read
        responses = await other.read_all(after=cursor)
        assert (numbers_in(*responses), gaps_in(responses)) == (numbers[read:], [])


async def test_after_everything_aged_out_only_new_events_are_sent(gateway, feeder, nc):
    await feeder.publish(100)
    await nc.jetstream().purge_stream("TETRA_EVENTS")
    gateway.gateway.streams.broadcaster.restart(10)
    call = await gateway.stream(after=stream_pb2.Cursor(stream_sequence=1))
    numbers = await feeder.publish(3)
    assert await read_numbers(call, 3) == numbers


async def test_slow_reader_misses_nothing(start_gateway, nc):
    gateway = await start_gateway(window_bytes=1 << 20)
    feeder = Feeder(nc)
    calls = [await gateway.stream(), await gateway.subscribe()]
    numbers = []
    broadcaster = gateway.gateway.streams.broadcaster
    for _ in range(10):
        numbers += await feeder.publish(400, per_batch=20, argument_bytes=2000)
    await eventually(lambda: broadcaster.head == 200)
    assert broadcaster.statistics().size_bytes <= 1 << 20
    assert any(feed.lag > 50 for feed in gateway.gateway.streams.feeds())
    reading = [asyncio.create_task(read_numbers(call, 5000, 60)) for call in calls]
    numbers += await feeder.publish(1000, per_batch=20)
    for got in await asyncio.gather(*reading):
        assert got == numbers
    assert not any(feed.catching_up for feed in gateway.gateway.streams.feeds())


async def test_disconnected_clients_leave_nothing_behind(gateway, feeder):
    await feeder.publish(1000, per_batch=100)

    async def come_and_go(number):
        call = await gateway.stream(**([{}, {"last": 300}, {"no_follow": True}][number % 3]))
        call.cancel()

    await asyncio.gather(*(come_and_go(number) for number in range(20)))
    streams = gateway.gateway.streams
    await eventually(lambda: len(streams) == 0)
    tasks, inboxes = len(asyncio.all_tasks()), len(gateway.gateway._nc._subs)
    for _ in range(5):
        await asyncio.gather(*(come_and_go(number) for number in range(40)))
    await eventually(lambda: len(streams) == 0)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
    assert len(gateway.gateway._nc._subs) <= inboxes
    assert (await feeder.js.stream_info("TETRA_EVENTS")).state.consumer_count == 1


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"allow_list": [{"binary_regex": ["("]}]}, "binary_regex: regex '('"),
        ({"deny_list": [{"cel_expression": ["process_exec.nope == 1"]}]}, "cel_expression: "),
        ({"deny_list": [{"labels": ["a b"]}]}, "labels: selector 'a b'"),
        ({"field_filters": [{"fields": {"paths": ["a..b"]}}]}, "field_filters: path 'a..b'"),
    ],
)
async def test_bad_requests_are_rejected_with_the_name_of_the_field(gateway, request_, text):
    call = gateway.events.StreamEvents(stream_pb2.StreamEventsRequest(**request_))
    assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert text in await call.details()


async def test_malformed_message_is_dropped_and_reported(gateway, feeder, capsys):
    call, plain = await gateway.stream(), await gateway.subscribe()
    await feeder.js.publish("tetra.events.n1", b"\xff\xff no batch")
    await feeder.publish(1)
    responses = await read_events(call, 1)
    assert await read_numbers(plain, 1) == numbers_in(*responses) == [1]
    [gap] = gaps_in(responses)
    assert (gap.cause, gap.node_name, gap.count, gap.first) == (
        stream_pb2.GapNotice.CAUSE_MALFORMED, "", 1, 1
    )  # fmt: skip
    assert gateway.gateway.streams.malformed == {"message": 1, "event": 0}
    assert "malformed batches dropped" in capsys.readouterr().out


MALFORMED_BATCHES = {
    "time": bus_pb2.EventBatch(
        node_name="n1", first_sequence=1, collector_start=Timestamp(seconds=1 << 62)
    ),
    "numbers": bus_pb2.EventBatch(
        node_name="n1", first_sequence=(1 << 64) - 1, events=[exec_event(1), exec_event(2)]
    ),
    "no number": bus_pb2.EventBatch(node_name="n1"),
}


@pytest.mark.parametrize("batch", MALFORMED_BATCHES.values(), ids=MALFORMED_BATCHES)
async def test_batch_with_impossible_times_or_numbers_is_dropped(gateway, feeder, batch):
    call = await gateway.stream()
    await feeder.js.publish("tetra.events.n1", batch.SerializeToString())
    await feeder.publish(1)
    assert await read_numbers(call, 1) == [1]
    assert gateway.gateway.streams.malformed == {"message": 1, "event": 0}


MALFORMED_EVENTS = {
    "garbage": b"\xff\xff",
    "empty": b"",
    "cut short": exec_event(3)[:-3],
    "no UTF-8": exec_event(3).replace(b"/usr/bin/true", b"/usr/bin/\xff\xfe\xfd\xfc"),
}


@pytest.mark.parametrize("payload", MALFORMED_EVENTS.values(), ids=MALFORMED_EVENTS)
async def test_malformed_event_is_left_out_and_reported(gateway, start_gateway, feeder, payload):
    """Forwarded, it would end the stream of every client."""
    call, plain = await gateway.stream(), await gateway.subscribe()
    await feeder.send(feeder.batch([exec_event(1), payload, exec_event(2)]))
    responses = await read_events(call, 2)
    assert await read_numbers(plain, 2) == numbers_in(*responses) == [1, 2]
    malformed = stream_pb2.GapNotice.CAUSE_MALFORMED
    assert [(gap.cause, gap.node_name, gap.first, gap.last) for gap in gaps_in(responses)] == [
        (malformed, "n1", 2, 2)
    ]
    assert gateway.gateway.streams.malformed == {"message": 0, "event": 1}
    # From the past, and through each way of choosing.
    other = await start_gateway()
    paths = {"paths": ["process.pid"]}
    for request in ({}, {"field_filters": [{"fields": paths}]}, {"deny_list": [{"pid": [9]}]}):
        responses = await other.read_all(last=3, **request)
        assert numbers_in(*responses) == [1, 2]
        assert [gap.cause for gap in gaps_in(responses)] == [malformed]


async def test_snapshot_with_a_malformed_event(gateway, feeder):
    feeder.alive = [exec_event(1), b"\xff\xff", exec_event(2)]
    await feeder.answer()
    assert numbers_in(*await gateway.read_all(snapshot=True)) == [1, 2]
