"""Events to batches on the bus: numbered, acknowledged, kept while the bus is away.

One batch is under way at a time, and the events that come meanwhile are the next one. An idle host
sends single events at once; a busy one sends thousands together. One at a time also keeps the
order, whatever fails. If NATS takes nothing for a second, or memory fills, events go to the spool
on disk; from then on they are read back in order.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.api import Header

from bus import subjects
from chassis.backoff import Backoff
from collector.delivery.disk import DiskThread
from collector.delivery.numbering import ACK_TIMEOUT_S, last_in_stream
from collector.delivery.spool import Record, Run, Spool
from collector.delivery.stored import BATCH_MAX_EVENTS, body, first_record, memory_of
from collector.delivery.trim import trim
from tetra.v1.bus_pb2 import EventBatch
from tetra.v1.node_pb2 import LossCounters
from wire.write import VARINT, message, tag, timestamp, varint

RETRY_MIN_S = 0.05
RETRY_MAX_S = 2.0
# An outage may last this long before events go to disk: longer than the restart of a server.
SPILL_AFTER_S = 1.0
# Events go to disk above this part of the memory limit; at the limit the oldest are dropped.
SPILL_ABOVE = 0.75
# Room in a NATS message for what is not events: header, names, counters.
_ENVELOPE_BYTES = 4096
_DEFAULT_PAYLOAD_BYTES = 1 << 20
_EVENT_OVERHEAD = 6  # tag and length in a batch

# Bounds of the histogram of acknowledgement times; it has one more place for larger ones.
LATENCY_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

_COLLECTOR_START = tag(EventBatch.COLLECTOR_START_FIELD_NUMBER)
_PROBES_START = tag(EventBatch.PROBES_START_FIELD_NUMBER)
_FIRST_SEQUENCE = tag(EventBatch.FIRST_SEQUENCE_FIELD_NUMBER, VARINT)

log = structlog.get_logger()


@dataclass(slots=True)
class PublisherStatistics:
    """Events by what became of them."""

    made: int = 0
    published: int = 0
    dropped: int = 0
    trimmed: int = 0
    oversized: int = 0  # could not be trimmed, and were dropped
    batches: int = 0
    retries: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))
    latency_s: float = 0.0  # sum


@dataclass(slots=True)
class _Batch:
    """Events under way; those that are acknowledged already are no longer in it."""

    run: Run
    first: int  # index in the run
    loss: LossCounters
    events: list[bytes]
    record: Record | None = None  # its place on disk


def _ignore(_base: int) -> None:
    """Ignore the number of the first event."""


@dataclass(slots=True)
class Publisher:
    """Holds the events that are not acknowledged yet, oldest first: on disk, under way, in memory.

    In memory they take at most ``memory_bytes``. ``numbered`` is called with the number of the
    first event before it is used.
    """

    own: Run  # numbers of this collector's events
    memory_bytes: int
    loss: Callable[[], LossCounters]
    spool: Spool
    statistics: PublisherStatistics = field(default_factory=PublisherStatistics)
    numbered: Callable[[int], None] = _ignore
    _disk: DiskThread = field(default_factory=DiskThread)
    _events: deque[bytes] = field(default_factory=deque)  # the newest, up to index `made`
    _moving: list[bytes] = field(default_factory=list)  # being written to disk, before `_events`
    _bytes: int = 0  # of memory
    _batch: _Batch | None = None
    _outcome_known: bool = False  # False: the stream may have what was sent last
    _asked: Run | None = None  # the run whose last number in the stream was asked for
    _stored: int = 0  # that number
    _reported_loss: LossCounters = field(default_factory=LossCounters)  # totals in the stream
    _failing_since: float | None = None
    _scope: asyncio.Timeout | None = None  # of the request under way
    _reconnected: asyncio.Event = field(default_factory=asyncio.Event)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _memory_filled: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, events: Sequence[bytes], *, more: bool = False) -> None:
        """Queue events. If memory and disk are full, the oldest are dropped and counted.

        ``more``: the next call follows in a moment; until then these may wait, if they are few.
        """
        if not events:
            if self._events and not more:
                self._wake.set()
            return
        self._events.extend(events)
        self._bytes += memory_of(events)
        self.statistics.made += len(events)
        if self._bytes > self.memory_bytes * SPILL_ABOVE:
            self._memory_filled.set()
            self._drop_oldest()
        self._idle.clear()
        if not more or len(self._events) >= BATCH_MAX_EVENTS:
            self._wake.set()

    def publish_loss(self) -> None:
        """Publish the totals of losses even if no event follows; call it when they have changed."""
        self._idle.clear()
        self._wake.set()

    def on_connection(self, connected: bool) -> None:
        """End waits that a lost connection makes useless, and those that a new one ends."""
        if connected:
            self._reconnected.set()
            return
        self._reconnected.clear()
        self._failing_since = self._failing_since or time.monotonic()
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    @property
    def waiting(self) -> int:
        """Events that are not acknowledged yet."""
        batch = self._batch
        held = len(batch.events) if batch else 0
        # A batch read from the disk stays there until all of it is acknowledged.
        on_disk = batch.record.events if batch and batch.record else 0
        return len(self._events) + len(self._moving) + held + self.spool.events - on_disk

    @property
    def waiting_in_memory(self) -> int:
        """Events that are in memory, and not in a batch."""
        return len(self._events) + len(self._moving)

    def held(self) -> list[bytes]:
        """Return the newest events that are in memory only, up to the last one, without a gap."""
        newest = [*self._moving, *self._events]
        batch = self._batch
        if batch and not batch.record and batch.first + len(batch.events) == self._index():
            return [*batch.events, *newest]
        return newest

    @property
    def waiting_bytes(self) -> int:
        """The memory and disk space of the events that are not acknowledged."""
        return self._bytes + self.spool.size_bytes

    @property
    def node_name(self) -> str:
        """This host's name in events."""
        return self.own.node_name

    @property
    def start_time_ns(self) -> int:
        """When this collector started, calendar clock."""
        return self.own.start_time_ns

    @property
    def last_sequence(self) -> int:
        """Number of the newest event; 0 while numbering is unknown."""
        return 0 if self.own.base is None else self.own.base + self.statistics.made - 1

    async def run(self, connected: asyncio.Future[Client]) -> None:
        """Publish until cancelled, from when there is a connection. It can be run again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish_forever(connected))
            tasks.create_task(self._relieve_memory())

    async def flush(self, timeout_s: float) -> None:
        """Wait until all events are acknowledged, at most ``timeout_s``."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    def close(self) -> None:
        """Write the remaining events to disk; log those that it does not take. Call after `run`."""
        self._disk.close()
        if self.waiting:
            self._close_batch()
            while self._events and self._write_oldest():
                pass
            if kept := self.spool.events:
                log.info("events kept on disk", events=kept)
            if lost := len(self.held()):
                log.warning("events not published", events=lost)
        self.spool.close()

    # --- memory and disk -------------------------------------------------------------------

    def _index(self) -> int:
        """Return the index of the oldest event that is in memory and not in a batch."""
        return self.statistics.made - len(self._events) - len(self._moving)

    def _drop_oldest(self) -> None:
        while self._bytes > self.memory_bytes and len(self._events) > 1:
            # Leaves a gap in the numbers, which every reader sees.
            self._bytes -= memory_of([self._events.popleft()])
            self.statistics.dropped += 1

    def _close_batch(self) -> None:
        batch = self._batch
        if batch is None or batch.record is not None or not batch.events or self.spool.events:
            return
        if self.spool.append(batch.first, len(batch.events), body(batch.loss, batch.events)):
            self._bytes -= memory_of(batch.events)
            self._batch = None

    def _write_oldest(self) -> bool:
        part = first_record(self._events)
        if not self.spool.append(self._index(), len(part), body(self.loss(), part)):
            return False
        for _ in part:
            self._events.popleft()
        self._bytes -= memory_of(part)
        return True

    async def _relieve_memory(self) -> None:
        """Move events to disk whenever memory fills."""
        while True:
            await self._memory_filled.wait()
            self._memory_filled.clear()
            async with self._disk.lock:
                await self._keep_batch()  # newer events must not be on disk without it
            if not await self._spill(int(self.memory_bytes * SPILL_ABOVE / 2)):
                await asyncio.sleep(SPILL_AFTER_S)

    async def _keep_batch(self) -> bool:
        """Write the batch under way to disk too; return whether it is there.

        If newer events are on disk already, it stays in memory, before them.
        """
        batch = self._batch
        if batch is None or not batch.events or batch.record is not None:
            return batch is None or batch.record is not None
        if self.spool.events:
            return False
        first, events = batch.first, list(batch.events)
        if not await self._disk.run(
            self.spool.append, first, len(events), body(batch.loss, events)
        ):
            return False
        if self._batch is batch:  # else all of it was acknowledged meanwhile
            self._bytes -= memory_of(batch.events)
            batch.record = await self._disk.run(self.spool.peek)
        return True

    async def _spill(self, keep_bytes: int = 0) -> bool:
        """Move the oldest events from memory to disk; return False if it does not take them."""
        while self._events and (self._bytes > keep_bytes or not keep_bytes):
            async with self._disk.lock:
                if not self._events:
                    break
                large = self._bytes > self.memory_bytes * SPILL_ABOVE / 2
                first, self._moving = self._index(), first_record(self._events, large=large)
                for _ in self._moving:
                    self._events.popleft()
                data = body(self.loss(), self._moving)
                written = await self._disk.run(self.spool.append, first, len(self._moving), data)
                self._settle_move(first, written)
            if not written:
                return False
        return True

    def _settle_move(self, first: int, written: bool) -> None:
        """Account for events from index ``first`` on that were written to disk, or were not."""
        moved, self._moving = self._moving, []
        if not written and self._index() == first + len(moved):
            self._events.extendleft(reversed(moved))
            return
        self._bytes -= memory_of(moved)
        if not written:  # newer ones were dropped meanwhile
            self.statistics.dropped += len(moved)

    # --- the bus ---------------------------------------------------------------------------

    async def _publish_forever(self, connected: asyncio.Future[Client]) -> None:
        nc = await self._wait_connected(connected)
        while True:
            while self.waiting or self._loss_is_due:
                await (self._publish_next(nc) if self.waiting else self._publish_loss(nc))
                # Until Python 3.12 wait_for, which nats-py uses, can lose a cancellation.
                if (task := asyncio.current_task()) and task.cancelling():
                    raise asyncio.CancelledError
            self._wake.clear()
            self._idle.set()
            await self._wake.wait()

    async def _wait_connected(self, connected: asyncio.Future[Client]) -> Client:
        # A cancelled wait must not cancel the future, which others await too.
        while not connected.done():
            await asyncio.wait({connected}, timeout=SPILL_AFTER_S)
            if not connected.done() and self._events:
                await self._spill()
        return connected.result()

    async def _publish_next(self, nc: Client) -> None:
        """Publish one batch; return when all of it is acknowledged or on disk."""
        if self._batch is None:
            self._batch = await self._take(_room(nc))
        batch, waits = self._batch, Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while batch is not None and batch.events:
            try:
                await self._publish_some(nc, batch)
                waits.reset()
                self._failing_since = None
                continue
            except (NatsError, OSError, TimeoutError) as error:
                # Without a responder there is no stream, and nothing was stored.
                self._outcome_known = isinstance(error, NoRespondersError)
                self._report(error, waits)
            now = time.monotonic()
            self._failing_since = self._failing_since or now
            if now - self._failing_since >= SPILL_AFTER_S:
                batch = await self._spill_all(batch)
            await self._pause(waits.next_s())
        if batch is not None:
            if batch.record is not None:
                async with self._disk.lock:
                    await self._disk.run(self.spool.pop)
            self._batch = None

    async def _spill_all(self, batch: _Batch) -> _Batch | None:
        """Move everything to disk; return the batch if that does not take it."""
        async with self._disk.lock:
            if batch.record is None and await self._keep_batch():
                self._batch = None  # it is read back, with its number
        await self._spill()
        return self._batch

    async def _pause(self, most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._reconnected.wait()
        self._reconnected.clear()

    def _report(self, error: Exception, waits: Backoff) -> None:
        self.statistics.retries += 1
        if not waits.attempts:
            log.debug("publish failed", error=repr(error), events=self.waiting)
        elif waits.is_longest and not self.statistics.retries % 30:
            log.warning("publish keeps failing", error=repr(error), events=self.waiting)

    async def _publish_some(self, nc: Client, batch: _Batch) -> None:
        """Publish as much of ``batch`` as one message holds, and remove it from the batch."""
        run = batch.run
        if not nc.is_connected:  # the client would keep the message and send it late
            raise NatsError("not connected")
        if run is not self._asked or not self._outcome_known:
            await self._ask_stored(nc, run, batch.first)
        assert run.base is not None
        there = min(max(0, self._stored + 1 - run.base - batch.first), len(batch.events))
        if there:  # only the acknowledgement was lost
            self._acknowledged(batch, there)
            return
        part = self._fit(batch, _room(nc))
        if not part:
            return
        self._outcome_known = False
        start = time.monotonic()
        try:
            async with asyncio.timeout(None) as self._scope:
                await _send(nc, run, run.base + batch.first, batch.loss, part)
        finally:
            self._scope = None
        took_s = time.monotonic() - start
        self._outcome_known = True
        self._stored = run.base + batch.first + len(part) - 1
        if run is self.own:
            self._reported_loss = batch.loss
        self.statistics.latency[bisect.bisect_left(LATENCY_BOUNDS_S, took_s)] += 1
        self.statistics.latency_s += took_s
        self.statistics.batches += 1
        self._acknowledged(batch, len(part))

    @property
    def _loss_is_due(self) -> bool:
        return self.loss() != self._reported_loss

    async def _publish_loss(self, nc: Client) -> None:
        """Publish the totals of losses alone; return when they are acknowledged or events wait."""
        waits = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while not self.waiting and self._loss_is_due:
            loss, run, index = self.loss(), self.own, self.statistics.made
            try:
                if not nc.is_connected:
                    raise NatsError("not connected")
                if run.base is None:
                    await self._ask_stored(nc, run, index)
                    continue  # events may have come meanwhile
                await _send(nc, run, run.base + index, loss, [])
                self._reported_loss = loss
            except (NatsError, OSError, TimeoutError) as error:
                self._report(error, waits)
                await self._pause(waits.next_s())

    async def _ask_stored(self, nc: Client, run: Run, index: int) -> None:
        stored = await last_in_stream(nc, run, index)
        # The last message may be totals of losses that were sent before an acknowledged batch.
        self._stored = max(stored, self._stored) if run is self._asked else stored
        self._asked, self._outcome_known = run, True
        if run.base is None:
            base = max(self._stored + 1, run.least_base)
            async with self._disk.lock:
                await self._disk.run(self.spool.number, run, base)
            if run is self.own:
                self.numbered(base)

    def _acknowledged(self, batch: _Batch, count: int) -> None:
        if batch.record is None:
            self._bytes -= memory_of(batch.events[:count])
        self.statistics.published += count
        batch.first += count
        batch.events = batch.events[count:]

    async def _take(self, room: int) -> _Batch | None:
        """Take the oldest events: from disk, else from memory, as many as one message may hold."""
        async with self._disk.lock:
            while self.spool.events:
                record = await self._disk.run(self.spool.peek)
                if record is None:
                    continue
                try:
                    stored = EventBatch.FromString(record.payload)
                except DecodeError:
                    await self._disk.run(self.spool.discard, "no batch")
                    continue
                loss = LossCounters()
                loss.CopyFrom(stored.loss)  # a reference would keep the whole message in memory
                return _Batch(record.run, record.first, loss, list(stored.events), record)
            first = self._index()
            events: list[bytes] = []
            while self._events and len(events) < BATCH_MAX_EVENTS:
                room -= len(self._events[0]) + _EVENT_OVERHEAD
                if room < 0 and events:
                    break
                events.append(self._events.popleft())
        return _Batch(self.own, first, self.loss(), events) if events else None

    def _fit(self, batch: _Batch, room: int) -> list[bytes]:
        """Return the first events of ``batch`` that fit into a message.

        An event that does not fit alone is trimmed; one that cannot be is dropped, and the list is
        empty.
        """
        size = 0
        for count, event in enumerate(batch.events):
            size += len(event) + _EVENT_OVERHEAD
            if size > room:
                if count:
                    return batch.events[:count]
                return self._fit_first(batch, room - _EVENT_OVERHEAD)
        return batch.events

    def _fit_first(self, batch: _Batch, room: int) -> list[bytes]:
        event = batch.events[0]
        trimmed = trim(event, room)
        if trimmed is None:
            self.statistics.oversized += 1
            log.error(
                "event dropped: too large for the bus, and cannot be trimmed",
                sequence=(batch.run.base or 0) + batch.first,
                bytes=len(event),
                limit_bytes=room,
            )
            self._acknowledged(batch, 1)
            self.statistics.published -= 1
            return []
        if batch.record is None:
            self._bytes += len(trimmed) - len(event)
        self.statistics.trimmed += 1
        batch.events[0] = trimmed
        return [trimmed]


def _room(nc: Client) -> int:
    return (nc.max_payload or _DEFAULT_PAYLOAD_BYTES) - _ENVELOPE_BYTES


async def _send(nc: Client, run: Run, first: int, loss: LossCounters, events: list[bytes]) -> None:
    """Publish a batch; without events it reports losses, and ``first`` is the next event's number.

    Totals alone have no Nats-Msg-Id: JetStream would discard the batch of the next event, which has
    the same number, as a duplicate. Twice the same totals mean the same as once.
    """
    subject = subjects.events_subject(run.node_name)
    prefix = (
        EventBatch(node_name=run.node_name, boot_id=run.boot_id).SerializeToString()
        + message(_COLLECTOR_START, timestamp(run.start_time_ns))
        + message(_PROBES_START, timestamp(run.probes_start_ns or run.start_time_ns))
        + _FIRST_SEQUENCE
        + varint(first)
    )
    token = subject.removeprefix(subjects.EVENTS_PREFIX)
    headers = {Header.MSG_ID.value: f"{token}:{run.boot_id}:{first}"} if events else None
    reply = await nc.request(
        subject,
        prefix + body(loss, events),
        timeout=ACK_TIMEOUT_S,
        headers=headers,
    )
    if b'"error"' in reply.data:
        raise NatsError(f"not stored: {reply.data.decode(errors='replace')}")
