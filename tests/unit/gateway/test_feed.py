"""One client's way: the window, then the past and back, and a stream that is replaced.

NATS is a fake here: what it answers, and when, is the point of each test.
"""

import asyncio

import pytest

from eventstream.copies import Damage
from eventstream.errors import BusError
from eventstream.history import Bounds, Fetched
from gateway.broadcaster import Broadcaster
from gateway.feed import Feed
from gateway.turn import TURN_S, Turn
from support.waiting import eventually
from tetra.v1 import stream_pb2
from unit.gateway.batches import batch

Gap = stream_pb2.GapNotice


class Past:
    """A stream in memory, in place of `History`."""

    def __init__(self, batches=(), first=1):
        self.batches = {one.stream_sequence: one for one in batches}
        self.first = first
        self.replicas = 1
        self.damage = []
        self.failures = 0
        self.fetches = 0

    @property
    def last(self):
        return max(self.batches, default=self.first - 1)

    async def bounds(self):
        return Bounds(self.first, self.last)

    async def fetch(self, start, limit=3):
        self.fetches += 1
        if self.failures:
            self.failures -= 1
            raise BusError("events: nats: timeout")
        found = [self.batches[n] for n in sorted(self.batches) if n >= start][:limit]
        damage, self.damage = self.damage, []
        return Fetched(found, damage)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr("gateway.feed.RETRY_MIN_S", 0.001)
    monkeypatch.setattr("gateway.feed.RETRY_MAX_S", 0.001)


def numbered(first, last):
    return [batch(n, n * 10 - 9) for n in range(first, last + 1)]


def window_of(batches, head=0, max_bytes=1 << 20):
    broadcaster = Broadcaster(max_bytes)
    broadcaster.restart(head)
    for one in batches:
        broadcaster.publish(one)
    return broadcaster


async def read(feed, count):
    async with asyncio.timeout(5):
        return [(await feed.next())[0].stream_sequence for _ in range(count)]


def causes(feed):
    return [gap.cause for gap in feed.take_notices()[1]]


async def test_feed_without_a_start_sends_from_the_next_batch():
    broadcaster = window_of(numbered(1, 3))
    feed = Feed(broadcaster, Past(), Turn())
    reading = asyncio.create_task(read(feed, 1))
    await asyncio.sleep(0)
    broadcaster.publish(batch(4, 31))
    assert await reading == [4]


async def test_window_is_read_without_asking_nats():
    past = Past()
    feed = Feed(window_of(numbered(1, 5)), past, Turn(), 2)
    assert await read(feed, 4) == [2, 3, 4, 5]
    assert (past.fetches, feed.lag, feed.catching_up) == (0, 0, False)


async def test_slow_client_reads_the_past_and_returns_to_the_window():
    batches = numbered(1, 10)
    past = Past(batches)
    feed = Feed(window_of(batches, max_bytes=batches[0].size_bytes * 3), past, Turn(), 1)
    assert feed.lag == 10
    assert await read(feed, 8) == list(range(1, 9))
    assert feed.catching_up
    fetches = past.fetches
    assert await read(feed, 2) == [9, 10]
    assert (past.fetches, feed.catching_up) == (fetches, False)
    assert causes(feed) == []


async def test_failed_nats_request_is_retried():
    past = Past(numbered(1, 3))
    past.failures = 4
    feed = Feed(window_of([], head=3), past, Turn(), 1)
    assert await read(feed, 3) == [1, 2, 3]
    assert past.fetches >= 5


async def test_messages_that_aged_out_are_a_gap_with_a_count():
    past = Past(numbered(6, 8), first=6)
    feed = Feed(window_of([], head=8), past, Turn(), 2)
    assert await read(feed, 3) == [6, 7, 8]
    _, [gap] = feed.take_notices()
    assert (gap.cause, gap.count) == (Gap.CAUSE_AGED_OUT, 4)
    assert gap.to.ToNanoseconds() == past.batches[6].stored_ns


async def test_messages_missing_inside_the_stream_are_damage():
    one, _, three = numbered(1, 3)
    feed = Feed(window_of([], head=3), Past([one, three]), Turn(), 1)
    assert await read(feed, 2) == [1, 3]
    gaps = feed.take_notices()[1]
    assert [(gap.first, gap.last) for gap in gaps] == [(2, 2), (11, 20)]
    assert {gap.cause for gap in gaps} == {Gap.CAUSE_STREAM_DAMAGED}


async def test_messages_missing_at_the_end_are_not_awaited():
    past = Past(numbered(1, 2))
    broadcaster = window_of([], head=5)
    feed = Feed(broadcaster, past, Turn(), 1)
    assert await read(feed, 2) == [1, 2]
    past.first, past.batches = 1, {}

    async def bounds():
        return Bounds(1, 5)

    past.bounds = bounds
    reading = asyncio.create_task(read(feed, 1))
    await eventually(lambda: feed.has_notices, 5, 0.001)
    [gap] = feed.take_notices()[1]
    assert (gap.cause, gap.first, gap.last) == (Gap.CAUSE_STREAM_DAMAGED, 3, 5)
    broadcaster.publish(batch(6, 51))
    assert await reading == [6]


async def test_damage_of_one_copy_is_noted():
    past = Past(numbered(1, 2))
    past.damage = [Damage("nats-2", 1, 1)]
    feed = Feed(window_of([], head=2), past, Turn(), 1)
    assert await read(feed, 2) == [1, 2]
    [gap] = feed.take_notices()[1]
    assert (gap.cause, gap.server, gap.count) == (Gap.CAUSE_COPY_DAMAGED, "nats-2", 1)


async def test_stream_that_was_replaced_is_read_from_its_beginning():
    broadcaster = window_of(numbered(1, 5))
    feed = Feed(broadcaster, Past(), Turn(), 4)
    assert await read(feed, 1) == [4]
    broadcaster.restart(0)
    for one in numbered(1, 2):
        broadcaster.publish(one)
    assert await read(feed, 2) == [1, 2]
    assert causes(feed) == [Gap.CAUSE_AGED_OUT]


async def test_batches_of_a_replaced_stream_are_discarded():
    broadcaster = window_of([], head=3)
    feed = Feed(broadcaster, Past(numbered(1, 3)), Turn(), 1)
    assert await read(feed, 1) == [1]  # 2 and 3 are fetched, too
    broadcaster.restart(0)
    broadcaster.publish(batch(1, 1))
    assert await read(feed, 1) == [1]


async def test_stream_that_lost_its_end_continues_after_the_rest():
    broadcaster = window_of(numbered(1, 5))
    feed = Feed(broadcaster, Past(), Turn(), 1)
    assert await read(feed, 5) == [1, 2, 3, 4, 5]
    broadcaster.restart(3, lost_end=(4, 5))
    broadcaster.publish(batch(4, 51))
    assert await read(feed, 1) == [4]
    [gap, *_] = feed.take_notices()[1]
    assert (gap.cause, gap.first, gap.last) == (Gap.CAUSE_STREAM_DAMAGED, 4, 5)


async def test_client_that_has_not_reached_the_lost_end_misses_nothing():
    broadcaster = window_of(numbered(1, 5))
    feed = Feed(broadcaster, Past(numbered(1, 3)), Turn(), 1)
    assert await read(feed, 2) == [1, 2]
    broadcaster.restart(3, lost_end=(4, 5))
    assert await read(feed, 1) == [3]
    assert causes(feed) == []


async def test_feed_yields_after_its_time_slice():
    feed = Feed(window_of(numbered(1, 30)), Past(), Turn(), 1)
    others = 0

    async def count():
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    loop = asyncio.get_running_loop()
    for _ in range(30):
        await feed.next()
        until = loop.time() + TURN_S  # a batch that takes a whole turn
        while loop.time() < until:
            pass
    counting.cancel()
    assert others >= 25
