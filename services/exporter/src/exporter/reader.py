"""Batches of the stream from a position on, in order, with notices of missing events."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from chassis.backoff import Backoff
from eventstream.batch import Batch
from eventstream.continuity import Continuity
from eventstream.ending import Attempts, Ending
from eventstream.errors import BusError
from eventstream.history import CHUNK_BATCHES, CHUNK_BYTES, Bounds, History
from exporter.place import Place
from tetra.v1 import stream_pb2

POLL_S = 0.1  # while the stream has nothing new, and after a chunk that was not full
_RETRY_MIN_S, _RETRY_MAX_S = 0.2, 5.0
_ATTEMPTS = Attempts(alone=30, copies=200)

_log = structlog.get_logger()


@dataclass(slots=True)
class Chunk:
    """The result of one read."""

    batches: list[tuple[Batch, int]]  # with how many of its first events are duplicates
    losses: list[stream_pb2.LossNotice] = field(default_factory=list)
    gaps: list[stream_pb2.GapNotice] = field(default_factory=list)


class Reader:
    """Reads from one place on, for one sink."""

    def __init__(self, history: History, sink: str) -> None:
        self._history = history
        self._log = _log.bind(sink=sink)
        self._continuity = Continuity()
        self._position = 1  # wanted next
        self._stored_ns = 0  # when NATS stored the last batch that was read
        self._ending = Ending(self._continuity, _ATTEMPTS)
        self._pause = False
        self._poll_s = POLL_S
        self.behind = 0  # messages of the stream that are not read yet

    async def open(self, place: Place | None, start: str) -> None:
        """Move after ``place``; without one, to the ``start``: now or oldest."""
        retry = Backoff(_RETRY_MIN_S, _RETRY_MAX_S)
        while True:
            try:
                await self._open(place, start)
                return
            except BusError as error:
                if not retry.attempts:
                    self._log.warning("stream missing, waiting", error=str(error))
                await retry.wait()

    @property
    def place(self) -> Place:
        """The current position."""
        return Place(self._position - 1, self._stored_ns)

    async def _open(self, place: Place | None, start: str) -> None:
        bounds = await self._history.bounds()
        if place is None:
            self._position = bounds.first if start == "oldest" else bounds.last + 1
            return
        self._position, self._stored_ns = place.sequence + 1, place.stored_ns
        if place.sequence and await self._is_replaced(place, bounds):
            self._start_over()
        elif place.sequence:
            await self._remember(place.sequence)

    async def next(self) -> Chunk:
        """Wait for the next chunk that has a batch or a notice."""
        retry = Backoff(_RETRY_MIN_S, _RETRY_MAX_S)
        if self._pause:
            await asyncio.sleep(self._poll_s)
        while True:
            try:
                chunk = await self._read()
            except BusError as error:
                if not retry.attempts:
                    self._log.warning("stream not read, trying again", error=str(error))
                await retry.wait()
                continue
            if retry.attempts:
                self._log.info("stream read again")
                retry.reset()
            if chunk is not None:
                return chunk
            await asyncio.sleep(self._poll_s)

    async def _read(self) -> Chunk | None:
        found, damage = await self._history.fetch(self._position)
        bounds = None
        if not found or found[0].stream_sequence > self._position:
            bounds = await self._history.bounds()
            self._check_end(found, bounds)
        for one in damage:
            self._log.warning("copy of the stream damaged", **one._asdict())
        read = sum(batch.size_bytes for batch in found)
        self._pause = len(found) < CHUNK_BATCHES and read < CHUNK_BYTES // 2
        self.behind = 0 if self._pause else max(self.behind - len(found), 1)
        batches = [self._take(batch) for batch in found]
        losses, gaps = self._continuity.notices.take()
        return Chunk(batches, losses, gaps) if batches or losses or gaps else None

    def _take(self, batch: Batch) -> tuple[Batch, int]:
        if batch.stream_sequence > self._position:
            self._continuity.note_damage(
                self._position, batch.stream_sequence - 1, self._stored_ns, batch.stored_ns
            )
        self._position, self._stored_ns = batch.stream_sequence + 1, batch.stored_ns
        return batch, self._continuity.check(batch)

    def _check_end(self, found: list[Batch], bounds: Bounds) -> None:
        if bounds.last + 1 < self._position:
            self._start_over()
            return
        self._position = self._ending.next_position(
            self._position, found, bounds, self._history.replicas, self._stored_ns
        )

    def _start_over(self) -> None:
        self._log.warning("stream replaced, reading the new one from its first message")
        self._continuity.note_aged_out(0)
        self._position, self._stored_ns = 1, 0

    async def measure(self) -> None:
        """Update the number of unread messages; raises `BusError`."""
        self.behind = max(0, (await self._history.bounds()).last + 1 - self._position)

    async def _is_replaced(self, place: Place, bounds: Bounds) -> bool:
        if bounds.last < place.sequence:
            return True
        if not place.stored_ns:  # a new sink that has read nothing yet
            return False
        found = (await self._history.fetch(place.sequence, 1)).batches
        if not found:
            return False
        first = found[0]
        if first.stream_sequence == place.sequence:
            return first.stored_ns != place.stored_ns
        return first.stored_ns < place.stored_ns

    # So that a gap, a loss or a repeated batch after the position is noticed as it would be without
    # the restart.
    async def _remember(self, sequence: int) -> None:
        try:
            await self._check_last(sequence)
        except BusError as error:
            self._log.warning("numbers before the restart not known", error=str(error))
        self._continuity.notices.take()

    async def _check_last(self, sequence: int) -> None:
        for batch in await self._history.last_of_each_node(sequence):
            self._continuity.check(batch)
