"""The events that are not acknowledged yet, oldest first: on disk, under way, in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from google.protobuf.message import DecodeError

from collector.delivery.batch import EVENT_OVERHEAD, Batch
from collector.delivery.disk import DiskThread
from collector.delivery.segments import Run
from collector.delivery.spool import Spool
from collector.delivery.statistics import PublisherStatistics
from collector.delivery.stored import BATCH_MAX_EVENTS, memory_of
from collector.delivery.trim import trim
from tetra.v1.bus_pb2 import EventBatch
from tetra.v1.node_pb2 import LossCounters

log = structlog.get_logger()


@dataclass(slots=True)
class Backlog:
    """Holds the events of ``own``; in memory they take at most ``memory_bytes``."""

    own: Run
    memory_bytes: int
    loss: Callable[[], LossCounters]
    spool: Spool
    statistics: PublisherStatistics
    disk: DiskThread = field(default_factory=DiskThread)
    events: deque[bytes] = field(default_factory=deque)  # the newest, up to index `made`
    moving: list[bytes] = field(default_factory=list)  # being written to disk, before `events`
    used_bytes: int = 0  # of memory
    batch: Batch | None = None  # under way

    def add(self, events: Sequence[bytes]) -> None:
        """Keep new events in memory."""
        self.events.extend(events)
        self.used_bytes += memory_of(events)
        self.statistics.made += len(events)

    def drop_oldest(self) -> None:
        """Drop the oldest events above the memory limit."""
        while self.used_bytes > self.memory_bytes and len(self.events) > 1:
            # Leaves a gap in the numbers, which every reader sees.
            self.used_bytes -= memory_of([self.events.popleft()])
            self.statistics.dropped += 1

    @property
    def index(self) -> int:
        """Index of the oldest event that is in memory and not in a batch."""
        return self.statistics.made - len(self.events) - len(self.moving)

    @property
    def in_memory(self) -> int:
        """Events that are in memory, and not in a batch."""
        return len(self.events) + len(self.moving)

    @property
    def size(self) -> int:
        """All events."""
        batch = self.batch
        held = len(batch.events) if batch else 0
        # A batch read from the disk stays there until all of it is acknowledged.
        on_disk = batch.record.events if batch and batch.record else 0
        return len(self.events) + len(self.moving) + held + self.spool.events - on_disk

    def held(self) -> list[bytes]:
        """Return the newest events that are in memory only, up to the last one, without a gap."""
        newest = [*self.moving, *self.events]
        batch = self.batch
        if batch and not batch.record and batch.first + len(batch.events) == self.index:
            return [*batch.events, *newest]
        return newest

    async def take(self, room: int) -> Batch | None:
        """Take the oldest events: from disk, else from memory, as many as one message may hold."""
        async with self.disk.lock:
            while self.spool.events:
                record = await self.disk.run(self.spool.peek)
                if record is None:
                    continue
                try:
                    stored = EventBatch.FromString(record.payload)
                except DecodeError:
                    await self.disk.run(self.spool.discard, "no batch")
                    continue
                loss = LossCounters()
                loss.CopyFrom(stored.loss)  # a reference would keep the whole message in memory
                self.batch = Batch(record.run, record.first, loss, list(stored.events), record)
                return self.batch
            first = self.index
            events: list[bytes] = []
            while self.events and len(events) < BATCH_MAX_EVENTS:
                room -= len(self.events[0]) + EVENT_OVERHEAD
                if room < 0 and events:
                    break
                events.append(self.events.popleft())
            self.batch = Batch(self.own, first, self.loss(), events) if events else None
        return self.batch

    def next_part(self, batch: Batch, room: int) -> list[bytes]:
        """Return the first events of ``batch`` that fit into a message.

        An event that does not fit alone is trimmed; one that cannot be is dropped, and the list is
        empty.
        """
        return batch.fitting(room) or self._trimmed(batch, room - EVENT_OVERHEAD)

    def acknowledged(self, batch: Batch, count: int) -> None:
        """Forget the first ``count`` events of ``batch``: the stream has them."""
        self._forget(batch, count)
        self.statistics.published += count

    async def finish(self, batch: Batch) -> None:
        """Forget a batch that has no more events."""
        if batch.record is not None:
            async with self.disk.lock:
                await self.disk.run(self.spool.pop)
        self.batch = None

    def _trimmed(self, batch: Batch, room: int) -> list[bytes]:
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
            self._forget(batch, 1)
            return []
        if batch.record is None:
            self.used_bytes += len(trimmed) - len(event)
        self.statistics.trimmed += 1
        batch.events[0] = trimmed
        return [trimmed]

    def _forget(self, batch: Batch, count: int) -> None:
        if batch.record is None:
            self.used_bytes -= memory_of(batch.events[:count])
        batch.first += count
        batch.events = batch.events[count:]
