"""Events to batches on the bus: numbered, acknowledged, kept while the bus is away.

Batches are natural: one is under way at a time, and what comes meanwhile is the next. An idle
host sends single events at once; a busy one sends thousands together. One at a time also keeps
the order, whatever fails. Where NATS takes nothing for a second, or memory fills, events go to the
spool on disk, and from there on they come back in order.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import structlog
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.api import Header

from bus import subjects
from collector.delivery.spool import Record, Run, Spool
from tetra.v1.bus_pb2 import EventBatch
from tetra.v1.node_pb2 import LossCounters
from tetragon.events_pb2 import GetEventsResponse
from wire.write import VARINT, message, tag, timestamp, varint

ACK_TIMEOUT_S = 5.0
RETRY_MIN_S = 0.05
RETRY_MAX_S = 2.0
BATCH_MAX_EVENTS = 5000
# An outage may last this long before events go to disk: longer than a server that restarts.
SPILL_AFTER_S = 1.0
SPILL_BYTES = 4 << 20  # to disk at once, so that the ring does not wait for long
RECORD_BYTES = 512 << 10
# What an event takes in memory beside its bytes: the object's head, its place in the queue, what
# the allocator rounds up; 46 bytes measured, each of 131,000 events.
EVENT_EXTRA_BYTES = 48
# Room in a NATS message for what is not events: header, names, counters.
_ENVELOPE_BYTES = 4096
_DEFAULT_PAYLOAD_BYTES = 1 << 20

# Of the histogram of acknowledgement times; one more place for what is above.
LATENCY_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

_COLLECTOR_START = tag(EventBatch.COLLECTOR_START_FIELD_NUMBER)
_PROBES_START = tag(EventBatch.PROBES_START_FIELD_NUMBER)
_FIRST_SEQUENCE = tag(EventBatch.FIRST_SEQUENCE_FIELD_NUMBER, VARINT)
_LOSS = tag(EventBatch.LOSS_FIELD_NUMBER)
_EVENT = tag(EventBatch.EVENTS_FIELD_NUMBER)

log = structlog.get_logger()


@dataclass(slots=True)
class PublisherStatistics:
    """Events by what became of them."""

    made: int = 0
    published: int = 0
    dropped: int = 0
    cut: int = 0
    batches: int = 0
    retries: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))
    latency_s: float = 0.0  # sum


@dataclass(slots=True)
class _Batch:
    """Events under way: some of them may be acknowledged already, and are no longer in it."""

    run: Run
    first: int  # index in the run
    loss: bytes  # serialized LossCounters
    events: list[bytes]
    record: Record | None = None  # where on disk it is from


@dataclass(slots=True)
class Publisher:
    """Holds the events that are not acknowledged yet, oldest first: on disk, under way, in memory.

    In memory they take at most ``memory_bytes``.
    """

    own: Run  # numbers of this collector's events
    memory_bytes: int
    loss: Callable[[], LossCounters]
    spool: Spool
    statistics: PublisherStatistics = field(default_factory=PublisherStatistics)
    numbered: Callable[[int], None] = lambda _base: None  # told `own.base`, before it is used
    _events: deque[bytes] = field(default_factory=deque)  # the newest; behind them is `made`
    _bytes: int = 0
    _batch: _Batch | None = None
    _sure: bool = False  # what is under way is certainly not in the stream yet
    _asked: Run | None = None  # whose last number in the stream was asked for
    _stored: int = 0  # and is this
    _failing_since: float | None = None
    _scope: asyncio.Timeout | None = None  # of the request under way
    _changed: asyncio.Event = field(default_factory=asyncio.Event)  # connected again
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, event: bytes) -> None:
        """Queue an event; where memory and disk are full the oldest goes, and is counted."""
        self._events.append(event)
        self._bytes += len(event) + EVENT_EXTRA_BYTES
        self.statistics.made += 1
        if self._bytes > self.memory_bytes:
            self._make_room()
        self._idle.clear()
        self._wake.set()

    def on_connection(self, connected: bool) -> None:
        """Do not wait for what a lost connection cannot bring, nor longer than needed after it."""
        if connected:
            self._changed.set()
            return
        self._changed.clear()
        self._failing_since = self._failing_since or time.monotonic()
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    @property
    def waiting(self) -> int:
        """Events that are not acknowledged yet."""
        under_way = self._batch
        held = len(under_way.events) if under_way else 0
        # What is under way from the disk stays there until all of it is acknowledged.
        on_disk = under_way.record.events if under_way and under_way.record else 0
        return len(self._events) + held + self.spool.events - on_disk

    def held(self) -> list[bytes]:
        """Return the newest events, those that are in memory only."""
        under_way = self._batch.events if self._batch and not self._batch.record else []
        return [*under_way, *self._events]

    @property
    def waiting_bytes(self) -> int:
        """What they take, in memory and on disk."""
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
        """Number of the newest event; 0 while numbering is not known."""
        return 0 if self.own.base is None else self.own.base + self.statistics.made - 1

    async def run(self, connected: asyncio.Future[Client]) -> None:
        """Publish for ever, from when there is a connection. Cancelled, it can run again."""
        nc = await self._wait_connected(connected)
        while True:
            while self.waiting:
                await self._publish_next(nc)
                # Until Python 3.12 wait_for, which nats-py uses, can lose a cancellation.
                if (task := asyncio.current_task()) and task.cancelling():
                    raise asyncio.CancelledError
            self._wake.clear()
            self._idle.set()
            await self._wake.wait()

    async def flush(self, timeout_s: float) -> None:
        """Wait until all is acknowledged, at most ``timeout_s``."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    def close(self) -> None:
        """Put what is left on disk; tell what that could not take. Only when `run` has ended."""
        if self.waiting:
            self._spill_batch()
            self._spill()
            if kept := self.spool.events:
                log.info("events kept on disk", events=kept)
            if lost := len(self.held()):
                log.warning("events not published", events=lost)
        self.spool.close()

    def _spill_batch(self) -> None:
        """Move what is under way to disk, where it is the oldest: not while it is being sent."""
        if self._keep_batch():
            self._batch = None

    def _keep_batch(self) -> bool:
        """Put what is under way on disk too, if it is not; tell whether it came there now.

        Where newer events are on disk already it stays in memory: it has to stay before them.
        """
        batch = self._batch
        if batch is None or batch.record is not None or not batch.events or self.spool.events:
            return False
        if not self.spool.append(batch.first, len(batch.events), _body(batch.loss, batch.events)):
            return False
        self._bytes -= _memory_of(batch.events)
        batch.record = self.spool.peek()
        return True

    def _spill(self, most_bytes: int | None = None) -> bool:
        """Move the oldest events from memory to disk; False where it does not take all of them."""
        moved, loss = 0, self.loss().SerializeToString()
        while self._events and (most_bytes is None or moved < most_bytes):
            part, size = _record_of(self._events)
            first = self.statistics.made - len(self._events)
            if not self.spool.append(first, len(part), _body(loss, part)):
                return False
            for _ in part:
                self._events.popleft()
            self._bytes -= _memory_of(part)
            moved += size
        return True

    async def _wait_connected(self, connected: asyncio.Future[Client]) -> Client:
        # A cancelled wait must not cancel what others await.
        while not connected.done():
            await asyncio.wait({connected}, timeout=SPILL_AFTER_S)
            if not connected.done() and self._events:
                self._spill()
        return connected.result()

    def _make_room(self) -> None:
        self._keep_batch()  # what is newer must not get there alone
        if self._spill(SPILL_BYTES):
            return
        while self._bytes > self.memory_bytes and len(self._events) > 1:
            self._bytes -= len(self._events.popleft()) + EVENT_EXTRA_BYTES
            # Leaves a hole in the numbers: whoever reads them sees the loss.
            self.statistics.dropped += 1

    async def _publish_next(self, nc: Client) -> None:
        """Publish one batch; come back when all of it is acknowledged or has gone to disk."""
        if self._batch is None:
            self._batch = self._take((nc.max_payload or _DEFAULT_PAYLOAD_BYTES) - _ENVELOPE_BYTES)
        batch, delay = self._batch, RETRY_MIN_S
        while batch is not None and batch.events:
            try:
                await self._publish_some(nc, batch)
                delay, self._failing_since = RETRY_MIN_S, None
                continue
            except (NatsError, OSError, TimeoutError) as error:
                self._sure = isinstance(error, NoRespondersError)  # no stream: nobody took it
                self._tell(error, delay)
            now = time.monotonic()
            self._failing_since = self._failing_since or now
            if now - self._failing_since >= SPILL_AFTER_S:
                self._spill_batch()
                self._spill()
                batch = self._batch  # None if it is on disk now
            await self._pause(delay * random.uniform(0.8, 1.2))
            delay = min(RETRY_MAX_S, delay * 2)
        if batch is not None:
            if batch.record is not None:
                self.spool.pop()
            self._batch = None

    async def _pause(self, most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._changed.wait()
        self._changed.clear()

    def _tell(self, error: Exception, delay: float) -> None:
        self.statistics.retries += 1
        if delay == RETRY_MIN_S:
            log.debug("publish failed", error=repr(error), events=self.waiting)
        elif delay >= RETRY_MAX_S and not self.statistics.retries % 30:
            log.warning("publish failing", error=repr(error), events=self.waiting)

    async def _publish_some(self, nc: Client, batch: _Batch) -> None:
        """Publish as much of ``batch`` as one message holds, and take it out of the batch."""
        run = batch.run
        if not nc.is_connected:  # else the client would keep it, and send it late
            raise NatsError("not connected")
        if run is not self._asked or not self._sure:
            self._stored = await self._stored_sequence(nc, run, batch)
            self._asked, self._sure = run, True
            if run.base is None:
                self.spool.number(run, max(self._stored + 1, run.least_base))
                if run is self.own:
                    self.numbered(run.base or 0)
        assert run.base is not None
        there = min(max(0, self._stored + 1 - run.base - batch.first), len(batch.events))
        if there:  # only the acknowledgement was lost
            self._acknowledged(batch, there)
            return
        part = self._fit(batch, (nc.max_payload or _DEFAULT_PAYLOAD_BYTES) - _ENVELOPE_BYTES)
        self._sure = False
        start = time.monotonic()
        try:
            async with asyncio.timeout(None) as self._scope:
                await self._send(nc, run, run.base + batch.first, batch.loss, part)
        finally:
            self._scope = None
        took_s = time.monotonic() - start
        self._sure = True
        self._stored = run.base + batch.first + len(part) - 1
        self.statistics.latency[bisect.bisect_left(LATENCY_BOUNDS_S, took_s)] += 1
        self.statistics.latency_s += took_s
        self.statistics.batches += 1
        self._acknowledged(batch, len(part))

    def _acknowledged(self, batch: _Batch, count: int) -> None:
        if batch.record is None:
            self._bytes -= _memory_of(batch.events[:count])
        self.statistics.published += count
        batch.first += count
        batch.events = batch.events[count:]

    def _take(self, room: int) -> _Batch | None:
        """Take the oldest events: from disk, else from memory, as many as one message may hold."""
        record = self.spool.peek()
        if record is not None:
            stored = EventBatch.FromString(record.payload)
            loss = stored.loss.SerializeToString()
            return _Batch(record.run, record.first, loss, list(stored.events), record)
        if not self._events:
            return None
        first = self.statistics.made - len(self._events)
        events: list[bytes] = []
        while self._events and len(events) < BATCH_MAX_EVENTS:
            room -= len(self._events[0]) + 6
            if room < 0 and events:
                break
            events.append(self._events.popleft())
        return _Batch(self.own, first, self.loss().SerializeToString(), events)

    def _fit(self, batch: _Batch, room: int) -> list[bytes]:
        """Return the events from the front of ``batch`` that a message has room for, at least one.

        One that is too large alone is cut.
        """
        size = 0
        for count, event in enumerate(batch.events):
            size += len(event) + 6
            if size > room:
                if count:
                    return batch.events[:count]
                short = shorten(event, room - 6)
                if batch.record is None:
                    self._bytes += len(short) - len(event)
                self.statistics.cut += 1
                batch.events[0] = short
                return [short]
        return batch.events

    async def _send(
        self, nc: Client, run: Run, first: int, loss: bytes, events: list[bytes]
    ) -> None:
        subject = subjects.events_subject(run.node_name)
        prefix = (
            EventBatch(node_name=run.node_name, boot_id=run.boot_id).SerializeToString()
            + message(_COLLECTOR_START, timestamp(run.start_time_ns))
            + message(_PROBES_START, timestamp(run.probes_start_ns or run.start_time_ns))
            + _FIRST_SEQUENCE
            + varint(first)
        )
        token = subject.removeprefix(subjects.EVENTS_PREFIX)
        reply = await nc.request(
            subject,
            prefix + _body(loss, events),
            timeout=ACK_TIMEOUT_S,
            headers={Header.MSG_ID: f"{token}:{run.boot_id}:{first}"},
        )
        if b'"error"' in reply.data:
            raise NatsError(f"not stored: {reply.data.decode(errors='replace')}")

    async def _stored_sequence(self, nc: Client, run: Run, under_way: _Batch) -> int:
        """Return the last number of the run's boot in the stream, 0 for none."""
        subject = subjects.events_subject(run.node_name)
        api = f"$JS.API.DIRECT.GET.{subjects.EVENTS_STREAM}.{subject}"
        reply = await nc.request(api, b"", timeout=ACK_TIMEOUT_S)
        if not reply.data:
            return 0  # status 404: no message of ours
        try:
            batch = EventBatch.FromString(reply.data)
        except DecodeError:
            log.warning("somebody else publishes on our subject", subject=subject)
            return _number_without_stream(run, under_way)
        if batch.boot_id != run.boot_id:
            return 0
        return batch.first_sequence + len(batch.events) - 1


def _number_without_stream(run: Run, under_way: _Batch) -> int:
    """Return what may stand for the last number in the stream where it cannot be read.

    Numbers go up whatever happens, else new events would pass for old ones. Where ours are not
    known, those of this boot so far are fewer than its microseconds: a hole too many is told.
    """
    if run.base is not None:
        return run.base + under_way.first - 1
    if run.least_base:
        return run.least_base - 1
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def spool_events(
    spool: Spool, run: Run, first: int, events: Sequence[bytes], loss: LossCounters
) -> int:
    """Put events of an earlier run, from index ``first`` on, into the spool; return how many."""
    done, counters = 0, loss.SerializeToString()
    while done < len(events):
        part, _ = _record_of(islice(events, done, None))
        if not spool.append(first + done, len(part), _body(counters, part), run):
            break
        done += len(part)
    return done


def _record_of(events: Iterable[bytes]) -> tuple[list[bytes], int]:
    """Return the first of ``events``, as many as go into one record on disk, and their size."""
    part, size = list[bytes](), 0
    for event in events:
        size += len(event)
        part.append(event)
        if size > RECORD_BYTES or len(part) == BATCH_MAX_EVENTS:
            break
    return part, size


def _memory_of(events: Sequence[bytes]) -> int:
    return sum(map(len, events)) + len(events) * EVENT_EXTRA_BYTES


def _body(loss: bytes, events: list[bytes]) -> bytes:
    """Return the fields `loss` and `events` of an EventBatch."""
    parts = [message(_LOSS, loss)]
    for event in events:
        parts += (_EVENT, varint(len(event)), event)
    return b"".join(parts)


def shorten(event: bytes, size_bytes: int) -> bytes:
    """Return ``event`` cut to ``size_bytes``: for a server that takes no larger told.

    The longest texts go first, and each process that lost some carries the flag truncArgs.
    """
    told = GetEventsResponse.FromString(event)
    inner = told.process_exec if told.HasField("process_exec") else told.process_exit
    for process in (inner.parent, *inner.ancestors, inner.process):
        excess = told.ByteSize() - size_bytes
        if excess <= 0:
            break
        if not process.ByteSize() > 1024:
            continue
        before = process.ByteSize()
        process.ClearField("argv")
        excess -= before - process.ByteSize()
        if excess > 0:
            del process.environment_variables[:]
            excess = told.ByteSize() - size_bytes
        if excess > 0:
            keep = max(0, len(process.arguments.encode()) - excess - 64)
            process.arguments = process.arguments.encode()[:keep].decode(errors="ignore")
        process.flags = f"{process.flags} truncArgs".lstrip()
    return told.SerializeToString()
