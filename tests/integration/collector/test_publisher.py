"""The publisher on a real NATS: outages, crashes, full disks; every event once, in order."""

import asyncio
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest

from bus import connection
from bus.settings import BusSettings
from collector.delivery import stored as stored_module
from collector.delivery.publisher import Publisher
from collector.delivery.segments import Run
from collector.delivery.spool import Spool
from support.feeder import exec_event
from support.gateways import numbers_in, read_numbers
from support.waiting import eventually
from tetra.v1.node_pb2 import LossCounters

BOOT = "c0000000-0000-4000-8000-000000000001"


class Collector:
    """The end of a collector: publisher and spool; it can be stopped, or killed."""

    starts = 1_800_000_000_000_000_000

    def __init__(self, folder, url, **options):
        Collector.starts += 1_000_000_000
        own = Run("n1", options.get("boot", BOOT), Collector.starts)
        spool = Spool(folder, options.get("disk", 64 << 20), options.get("sync", "never"))
        spool.open(own.node_name)
        memory = options.get("memory", 64 << 20)
        self.lost = {}  # by cause
        self.publisher = Publisher(own, memory, lambda: LossCounters(by_cause=self.lost), spool)
        self._url = url
        self._nc = None
        self._tasks = []

    async def start(self):
        loop = asyncio.get_running_loop()
        self.connected = loop.create_future()
        self._tasks = [loop.create_task(self.publisher.run(self.connected))]
        self._tasks.append(loop.create_task(self._connect()))
        return self

    async def _connect(self):
        settings: dict[str, Any] = {"nats_url": self._url}
        self._nc = connection.client()
        await connection.connect(
            BusSettings(**settings), "test", nc=self._nc, on_change=self.publisher.on_connection
        )
        self.connected.set_result(self._nc)

    def publish(self, numbers, size=0):
        self.publisher.publish([exec_event(n, argument_bytes=size) for n in numbers])

    def lose(self, **lost):
        """Count losses, as Losses does when it reads the counters."""
        self.lost = lost
        self.publisher.publish_loss()

    async def kill(self):
        """End without cleanup, like kill -9: what was only in memory is lost."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._nc is not None:
            with suppress(Exception):
                await self._nc.close()
        self.publisher.spool.close()  # as the kernel does

    async def stop(self):
        """Stop cleanly: what cannot be published is put on disk."""
        await self.kill()
        self.publisher.close()

    async def done(self, timeout_s=30):
        await eventually(lambda: not self.publisher.waiting, timeout_s)


@pytest.fixture
async def collector(tmp_path, nats_server, gateway):
    """Make collectors of node n1 with one state folder."""
    made = []

    async def make(**options):
        made.append(await Collector(tmp_path / "spool", nats_server.url, **options).start())
        return made[-1]

    yield make
    for one in made:
        await one.kill()


@asynccontextmanager
async def outage(server):
    """NATS is down."""
    server.stop()
    yield
    server.start()


async def stored(gateway):
    """Return the numbers of all events in the stream, in order."""
    await eventually(lambda: gateway.gateway.streams.live)
    return numbers_in(*await gateway.read_all(last=1_000_000))


def progressed(one, before):
    """Return whether some of what was on disk is published, or nothing was."""
    return on_disk(one) < before or not before


def on_disk(one):
    return one.publisher.spool.events


async def test_events_of_an_outage_are_spooled_on_disk_and_published_in_order(
    collector, gateway, nats_server
):
    call = await gateway.stream()
    one = await collector()
    one.publish(range(1, 101))
    await one.done()
    async with outage(nats_server):
        one.publish(range(101, 2001))
        await eventually(lambda: on_disk(one) >= 1900)
        await eventually(lambda: not one.publisher.backlog.used_bytes)
        one.publish(range(2001, 3001))  # newer than what is on disk
        await eventually(lambda: on_disk(one) >= 2900)
    one.publish(range(3001, 3101))
    await one.done()
    assert await read_numbers(call, 3100, 30) == list(range(1, 3101))
    assert await stored(gateway) == list(range(1, 3101))
    assert one.publisher.spool.size_bytes == 0
    assert one.publisher.statistics.published == 3100
    assert one.publisher.statistics.dropped == 0


async def test_a_collector_that_never_reached_nats_keeps_events_for_the_next(
    collector, gateway, nats_server
):
    async with outage(nats_server):
        first = await collector()
        first.publish(range(1, 501))
        await eventually(lambda: on_disk(first) == 500)
        await first.kill()
        second = await collector()
        second.publish(range(501, 601))
        await eventually(lambda: on_disk(second) == 600)
        await second.kill()
    third = await collector()
    third.publish(range(601, 701))
    await third.done()
    assert await stored(gateway) == list(range(1, 701))


async def test_a_clean_stop_during_an_outage_loses_nothing(collector, gateway, nats_server):
    first = await collector()
    first.publish(range(1, 11))
    await first.done()
    async with outage(nats_server):
        first.publish(range(11, 21))
        await first.stop()
        assert on_disk(first) == 10
    second = await collector()
    second.publish(range(21, 31))
    await second.done()
    assert await stored(gateway) == list(range(1, 31))


async def test_kill_during_the_replay_makes_no_duplicates(
    collector, gateway, nats_server, monkeypatch
):
    monkeypatch.setattr(stored_module, "RECORD_BYTES", 2000)  # many records
    one = await collector()
    one.publish(range(1, 51))
    await one.done()
    async with outage(nats_server):
        one.publish(range(51, 3001))
        await eventually(lambda: on_disk(one) == 2950)
    for _ in range(6):  # each gets some of it done
        before = on_disk(one)
        await eventually(partial(progressed, one, before))
        await one.kill()
        one = await collector()
    one.publish(range(3001, 3011))
    await one.done()
    assert await stored(gateway) == list(range(1, 3011))


async def test_an_acknowledgement_lost_with_the_collector_makes_no_duplicates(
    collector, gateway, nats_server
):
    one = await collector()
    one.publish(range(1, 101))
    await one.done()
    # All of it is in the stream, yet the spool still holds it, as if unacknowledged.
    one.publisher.spool.append(one.publisher.own, 0, 100, _body_of(range(1, 101)))
    await one.kill()
    two = await collector()
    two.publish(range(101, 111))
    await two.done()
    assert await stored(gateway) == list(range(1, 111))


def _body_of(numbers):
    return stored_module.body(LossCounters(), [exec_event(n) for n in numbers])


async def test_events_of_an_earlier_boot_keep_their_own_numbers(collector, gateway, nats_server):
    old = await collector()
    old.publish(range(1, 21))
    await old.done()
    async with outage(nats_server):
        old.publish(range(21, 41))
        await eventually(lambda: on_disk(old) == 20)
        await old.kill()
    new = await collector(boot="another-boot")
    new.publish(range(41, 51))
    await new.done()
    assert await stored(gateway) == list(range(1, 51))
    assert new.publisher.own.base == 1
    assert new.publisher.last_sequence == 10


async def test_full_spool_drops_the_oldest_and_reports_how_many(collector, gateway, nats_server):
    call = await gateway.stream()
    one = await collector(disk=8 << 20, memory=4 << 20)
    one.publish(range(1, 11))
    await one.done()
    assert await read_numbers(call, 10) == list(range(1, 11))
    async with outage(nats_server):
        for start in range(11, 20_011, 500):
            one.publish(range(start, start + 500), size=1000)
            await eventually(lambda: one.publisher.waiting_in_memory < 1500)
        await eventually(lambda: not one.publisher.backlog.events)
        assert one.publisher.spool.size_bytes <= 8 << 20
    await one.done()
    dropped = one.publisher.spool.statistics.dropped
    assert dropped > 5000
    got, missing = [], 0
    while len(got) < 20_000 - dropped:
        message = await asyncio.wait_for(call.read(), 60)
        got += numbers_in(message)
        missing += sum(gap.count for gap in message.gaps)
    # The batch in flight when memory filled is the oldest; the one gap is behind it.
    lost = [n for n in range(11, 20_011) if n not in set(got)]
    assert lost == list(range(lost[0], lost[0] + dropped))
    assert got == sorted(got)
    assert missing == dropped


async def test_without_a_disk_the_spool_keeps_its_memory_limit(collector, gateway, nats_server):
    one = await collector(disk=0, memory=1 << 20)
    async with outage(nats_server):
        one.publish(range(1, 3001), size=1000)
        assert one.publisher.backlog.used_bytes <= 1 << 20
    await one.done()
    dropped = one.publisher.statistics.dropped
    assert await stored(gateway) == list(range(1 + dropped, 3001))
    assert 1500 < dropped < 2500


async def test_an_outage_longer_than_the_duplicate_window_makes_no_duplicates(
    collector, gateway, nats_server, nc
):
    """The stream forgets after two minutes which batches it had; our numbers do not."""
    config = (await nc.jetstream().stream_info("TETRA_EVENTS")).config
    config.duplicate_window = 0.1
    await nc.jetstream().update_stream(config)
    one = await collector()
    for round_ in range(5):
        one.publish(range(round_ * 100 + 1, round_ * 100 + 51))
        await asyncio.sleep(0.01)  # some of it may be under way
        async with outage(nats_server):
            one.publish(range(round_ * 100 + 51, round_ * 100 + 101))
            await asyncio.sleep(0.3)
        await one.done()
    assert await stored(gateway) == list(range(1, 501))


async def test_a_record_larger_than_a_message_is_sent_in_parts(collector, gateway, monkeypatch):
    monkeypatch.setattr(stored_module, "RECORD_BYTES", 4 << 20)
    one = await collector()
    one.publisher.spool.append(one.publisher.own, 0, 3000, _body_of_size(range(1, 3001), 1000))
    one.publisher.statistics.made = 3000
    one.publish(range(3001, 3002))
    await one.done()
    assert await stored(gateway) == list(range(1, 3002))


def _body_of_size(numbers, size):
    return stored_module.body(LossCounters(), [exec_event(n, argument_bytes=size) for n in numbers])


async def test_event_that_cannot_be_sent_stops_nothing(collector, gateway):
    """One is trimmed, one cannot be: it is dropped, and the gap names its number."""
    one = await collector(disk=256 << 20)
    large, hopeless = 4, 7
    events = [exec_event(n) for n in range(1, 11)]
    events[large - 1] = exec_event(large, argument_bytes=3 << 20)
    events[hopeless - 1] = b"\xff" * (3 << 20)
    one.publisher.publish(events)
    await one.done()
    statistics = one.publisher.statistics
    assert (statistics.trimmed, statistics.oversized) == (1, 1)
    responses = await gateway.read_all(last=100)
    assert numbers_in(*responses) == [n for n in range(1, 11) if n != hopeless]
    [gap] = [gap for response in responses for gap in response.gaps]
    assert (gap.cause, gap.first, gap.last) == (gap.CAUSE_MISSING_SEQUENCE, hopeless, hopeless)
    [cut] = [e.process_exec.process for r in responses for e in r.events
             if e.process_exec.process.pid.value == large]  # fmt: skip
    assert cut.flags == "execve clone truncArgs"
    assert 900_000 < len(cut.arguments) < 1 << 20


# --- losses alone ----------------------------------------------------------------------------


async def losses_of(call, timeout_s=30):
    """Return the counts of the next loss notice, and the numbers of the events before it."""
    numbers = []
    async with asyncio.timeout(timeout_s):
        while True:
            message = await call.read()
            assert not message.gaps
            numbers += numbers_in(message)
            if message.losses:
                [notice] = message.losses
                return dict(notice.lost.by_cause), numbers


async def test_loss_is_reported_although_no_event_follows(collector, gateway, nc):
    call = await gateway.stream()
    one = await collector()
    one.publish(range(1, 4))
    assert await read_numbers(call, 3) == [1, 2, 3]
    one.lose(ring_full=5)
    assert await losses_of(call) == ({"ring_full": 5}, [])
    one.lose(ring_full=7, exec=1)
    assert await losses_of(call) == ({"ring_full": 2, "exec": 1}, [])
    # The next event has the number that the totals were sent with, and is no duplicate of them.
    one.publish(range(4, 6))
    assert await read_numbers(call, 2) == [4, 5]
    assert await stored(gateway) == [1, 2, 3, 4, 5]
    state = (await nc.jetstream().stream_info("TETRA_EVENTS")).state
    assert state.messages == 4


async def test_same_totals_are_not_published_again(collector, gateway, nc):
    one = await collector()
    one.lost = {"spool": 3}
    one.publish(range(1, 4))
    await one.publisher.flush(30)
    one.publisher.publish_loss()
    await one.publisher.flush(30)
    state = (await nc.jetstream().stream_info("TETRA_EVENTS")).state
    assert state.messages == 1


async def test_loss_of_an_outage_is_reported_when_it_ends(collector, gateway, nats_server):
    call = await gateway.stream()
    one = await collector()
    one.publish(range(1, 4))
    assert await read_numbers(call, 3) == [1, 2, 3]
    async with outage(nats_server):
        one.lose(ring_full=5)
        await asyncio.sleep(0.2)  # the request fails, or waits for a connection
    assert await losses_of(call) == ({"ring_full": 5}, [])
    one.publish(range(4, 6))
    assert await read_numbers(call, 2) == [4, 5]


@pytest.mark.parametrize("events", [0, 3])
async def test_numbers_continue_after_a_loss_alone(collector, gateway, events):
    """The next collector takes its first number from the last message, which has no event."""
    one = await collector()
    one.publish(range(events))
    await one.done()
    one.lose(ring_full=5)
    await one.publisher.flush(30)
    await one.kill()
    two = await collector()
    two.publish(range(events, events + 3))
    await two.publisher.flush(30)
    assert await stored(gateway) == list(range(events + 3))
    assert two.publisher.last_sequence == events + 3


@pytest.mark.parametrize("restart", [False, True])
async def test_another_publisher_on_our_subject(collector, gateway, nats_server, nc, restart):
    """An unreadable message stops nothing; numbers still only rise."""
    one = await collector()
    one.publish(range(1, 11))
    await one.done()
    if restart:
        await one.kill()
    await nc.jetstream().publish("tetra.events.n1", b"\xff\xff no batch")
    if restart:
        one = await collector()
    else:
        async with outage(nats_server):  # it asks what is stored when it comes back
            one.publish(range(11, 21))
    one.publish(range(21, 31))
    await one.done()
    assert await stored(gateway) == [*range(1, 11), *(() if restart else range(11, 21)),
                                     *range(21, 31)]  # fmt: skip
