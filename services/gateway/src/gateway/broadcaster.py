"""Fan-out: one window of the newest batches in memory, which every stream reads at its own
position.

The window is the bounded queue of all streams. A stream that is slower than the bus falls behind
its end, reads from NATS (feed.py), and returns as soon as the window has what it needs. Nothing is
copied per stream, nothing is dropped, and the memory does not grow with the number of streams.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from eventstream.batch import Batch

# The newest batches keep what was parsed from them, which is several times as large as they are.
WARM_BATCHES = 32
WARM_BYTES = 2 << 20


class Behind(Exception):
    """The position is no longer in the window."""


class Statistics(NamedTuple):
    """Counters of the window, current and since the start."""

    batches: int
    size_bytes: int
    events_total: int


class Broadcaster:
    """The newest batches, in the order of the stream."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._batches: dict[int, Batch] = {}  # by stream sequence, ascending
        self._warm: deque[Batch] = deque()
        self._warm_bytes = 0
        self._size_bytes = 0
        self._events_total = 0
        self._arrived = asyncio.Event()
        self.head = 0  # stream sequence of the newest batch, or where the window began
        self.generation = 0  # incremented for each new stream; see restart()
        # Messages that the stream lost at its end, if this generation continues the same stream.
        self.lost_end: tuple[int, int] | None = None

    def restart(self, head: int, lost_end: tuple[int, int] | None = None) -> None:
        """Empty the window: the next batch is the one behind ``head`` of a new stream.

        ``lost_end``: it is not a new stream, but the old one without these messages, its last.
        """
        self.lost_end = lost_end
        self._batches.clear()
        self._warm.clear()
        self._size_bytes = self._warm_bytes = 0
        self.head = head
        self.generation += 1
        self._wake()

    def publish(self, batch: Batch) -> None:
        """Add the newest batch and wake the streams that wait for it."""
        self._batches[batch.stream_sequence] = batch
        self._size_bytes += batch.size_bytes
        self._events_total += len(batch.payloads)
        self.head = batch.stream_sequence
        self._keep_warm(batch)
        while self._size_bytes > self._max_bytes and len(self._batches) > 1:
            oldest = self._batches.pop(next(iter(self._batches)))
            self._size_bytes -= oldest.size_bytes
        self._wake()

    def get(self, sequence: int) -> Batch | None:
        """Return the batch with number ``sequence``, None if it is still to come.

        Raises `Behind` where the window does not have it: it is too old, or NATS skipped it. Only
        `History` can find out which.
        """
        if sequence > self.head:
            return None
        batch = self._batches.get(sequence)
        if batch is None:
            raise Behind
        return batch

    def stored_ns_before(self, sequence: int) -> int:
        """Return when NATS stored the message before ``sequence``; 0 where that is not known."""
        batch = self._batches.get(sequence - 1)
        return batch.stored_ns if batch else 0

    async def wait_beyond(self, sequence: int) -> None:
        """Return when the head is beyond ``sequence``, or the window has been restarted."""
        generation = self.generation
        while self.head <= sequence and self.generation == generation:
            await self._arrived.wait()

    def statistics(self) -> Statistics:
        """Return sizes and totals."""
        return Statistics(len(self._batches), self._size_bytes, self._events_total)

    def _keep_warm(self, batch: Batch) -> None:
        batch.warm = True
        self._warm.append(batch)
        self._warm_bytes += batch.size_bytes
        while len(self._warm) > 1 and (
            len(self._warm) > WARM_BATCHES or self._warm_bytes > WARM_BYTES
        ):
            cooled = self._warm.popleft()
            self._warm_bytes -= cooled.size_bytes
            cooled.cool()

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()
