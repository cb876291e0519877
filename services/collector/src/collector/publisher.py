"""Events to batches on the bus: numbered, acknowledged, kept while the bus is away.

Batches are natural: one is under way at a time, and what comes meanwhile is the next. An idle
host sends single events at once; a busy one sends thousands together. One at a time also keeps
the order, whatever fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.api import Header

from bus import subjects
from collector.events import message, tag, timestamp, varint
from tetra.v1.bus_pb2 import EventBatch
from tetra.v1.node_pb2 import LossCounters
from tetragon.events_pb2 import GetEventsResponse

ACK_TIMEOUT_S = 5.0
RETRY_MIN_S = 0.05
RETRY_MAX_S = 2.0
BATCH_MAX_EVENTS = 5000
# Room in a NATS message for what is not events: header, names, counters.
_ENVELOPE_BYTES = 4096
_DEFAULT_PAYLOAD_BYTES = 1 << 20

_FIRST_SEQUENCE = tag(EventBatch.FIRST_SEQUENCE_FIELD_NUMBER, 0)
_LOSS = tag(EventBatch.LOSS_FIELD_NUMBER, 2)
_EVENT = tag(EventBatch.EVENTS_FIELD_NUMBER, 2)

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


@dataclass(slots=True)
class Publisher:
    """Holds the events that are not acknowledged yet, oldest first, at most ``memory_bytes``."""

    node_name: str
    boot_id: str
    start_time_ns: int
    memory_bytes: int
    loss: Callable[[], LossCounters]
    statistics: PublisherStatistics = field(default_factory=PublisherStatistics)
    _events: deque[bytes] = field(default_factory=deque)
    _bytes: int = 0
    _first: int = 0  # index of the oldest event that waits, counted from this collector's first
    _batch: list[bytes] = field(default_factory=list)  # under way: taken from those that wait
    _batch_first: int = 0
    # Sequence number of index 0: this boot's numbers go on where an earlier collector stopped.
    _base: int | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _prefix: bytes = b""

    def __post_init__(self) -> None:
        self._prefix = EventBatch(
            node_name=self.node_name, boot_id=self.boot_id
        ).SerializeToString() + message(
            tag(EventBatch.COLLECTOR_START_FIELD_NUMBER, 2), timestamp(self.start_time_ns)
        )

    def publish(self, event: bytes) -> None:
        """Queue an event; where memory is full the oldest goes, and is counted."""
        self._events.append(event)
        self._bytes += len(event)
        self.statistics.made += 1
        while self._bytes > self.memory_bytes and len(self._events) > 1:
            self._bytes -= len(self._events.popleft())
            self._first += 1  # leaves a hole in the numbers: whoever reads them sees the loss
            self.statistics.dropped += 1
        self._idle.clear()
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Events that are not acknowledged yet."""
        return len(self._events) + len(self._batch)

    @property
    def last_sequence(self) -> int:
        """Number of the newest event; 0 while numbering is not known."""
        return 0 if self._base is None else self._base + self._first + len(self._events) - 1

    async def run(self, connected: asyncio.Future[Client]) -> None:
        """Publish for ever, from when there is a connection. Cancelled, it can run again."""
        nc = await asyncio.shield(connected)  # a cancelled wait must not cancel what others await
        subject = subjects.events_subject(self.node_name)
        sure = not self._batch
        while True:
            while self.waiting:
                await self._publish_next(nc, subject, sure)
                sure = True
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
        if self.waiting:
            log.warning("events not published", events=self.waiting)

    async def _publish_next(self, nc: Client, subject: str, sure: bool) -> None:
        """Publish one batch; come back only when it is acknowledged.

        ``sure``: it is certain that the batch is not in the stream already.
        """
        delay = RETRY_MIN_S
        while True:
            try:
                if self._base is None or not sure:
                    stored = await self._stored_sequence(nc, subject)
                    if self._base is None:
                        self._base = stored + 1
                    elif stored >= self._base + self._batch_first + len(self._batch) - 1:
                        break  # only the acknowledgement was lost
                    sure = True
                if not self._batch:
                    self._take(nc.max_payload or _DEFAULT_PAYLOAD_BYTES)
                sure = False
                await self._send(nc, subject, self._base + self._batch_first)
                break
            except (NatsError, OSError, TimeoutError) as error:
                if isinstance(error, NoRespondersError):
                    sure = True  # no stream: nobody took it
                self.statistics.retries += 1
                if delay == RETRY_MIN_S:
                    log.debug("publish failed", error=repr(error), events=self.waiting)
                elif delay >= RETRY_MAX_S and not self.statistics.retries % 30:
                    log.warning("publish failing", error=repr(error), events=self.waiting)
                await asyncio.sleep(delay)
                delay = min(RETRY_MAX_S, delay * 2)
        self._bytes -= sum(map(len, self._batch))
        self.statistics.published += len(self._batch)
        self.statistics.batches += 1
        self._batch = []

    def _take(self, payload_bytes: int) -> None:
        """Take the oldest events from those that wait, as many as one message may hold."""
        room, batch = payload_bytes - _ENVELOPE_BYTES, list[bytes]()
        while self._events and len(batch) < BATCH_MAX_EVENTS:
            event = self._events[0]
            if len(event) + 6 > room:
                if batch:
                    break
                short = shorten(event, room - 6)
                self._bytes += len(short) - len(event)
                self.statistics.cut += 1
                event = short
            room -= len(event) + 6
            batch.append(event)
            self._events.popleft()
        self._batch, self._batch_first = batch, self._first
        self._first += len(batch)

    async def _send(self, nc: Client, subject: str, first: int) -> None:
        parts = [self._prefix, _FIRST_SEQUENCE, varint(first)]
        parts.append(message(_LOSS, self.loss().SerializeToString()))
        for event in self._batch:
            parts += (_EVENT, varint(len(event)), event)
        token = subject.removeprefix(subjects.EVENTS_PREFIX)
        reply = await nc.request(
            subject,
            b"".join(parts),
            timeout=ACK_TIMEOUT_S,
            headers={Header.MSG_ID: f"{token}:{self.boot_id}:{first}"},
        )
        if b'"error"' in reply.data:
            raise NatsError(f"not stored: {reply.data.decode(errors='replace')}")

    async def _stored_sequence(self, nc: Client, subject: str) -> int:
        """Return the last number of this boot in the stream, 0 for none."""
        api = f"$JS.API.DIRECT.GET.{subjects.EVENTS_STREAM}.{subject}"
        reply = await nc.request(api, b"", timeout=ACK_TIMEOUT_S)
        if not reply.data:
            return 0  # status 404: no message of ours
        batch = EventBatch.FromString(reply.data)
        if batch.boot_id != self.boot_id:
            return 0
        return batch.first_sequence + len(batch.events) - 1


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
