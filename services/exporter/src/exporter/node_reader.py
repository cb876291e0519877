"""Batches of one node: NATS selects them by subject, so a host does not get what others publish."""

from __future__ import annotations

import time

from eventstream.batch import Batch
from eventstream.history import CHUNK_BATCHES, CHUNK_BYTES, History
from exporter.reader import POLL_S, Chunk, Reader

_MAX_POLL_S = 1.0  # while the node is quiet: a thousand hosts may do it
_BOUNDS_S = 5.0  # NATS is asked so often what the stream spans
# After this time every copy of the stream has a stored message.
_SETTLED_S = 60.0


class NodeReader(Reader):
    """Reads the batches of one node.

    The node's event numbers show whether the copy that answered lacks a batch: then all messages
    between the two batches are read.
    """

    def __init__(self, history: History, sink: str, node: str) -> None:
        super().__init__(history, sink)
        self._node = node
        self._newest: tuple[str, int] = ("", 0)  # boot and number of the last event
        self._ends: tuple[float, int] | None = None  # the stream's last message at a time
        self._bounds_s = 0.0

    async def _read(self) -> Chunk | None:
        now = time.monotonic()
        skipped = False
        if now - self._bounds_s >= _BOUNDS_S:
            skipped = await self._check_bounds(now)
            self._bounds_s = now
        found = await self._history.fetch_node(self._node, self._position)
        self._poll_s = POLL_S if found else min(2 * self._poll_s, _MAX_POLL_S)
        read = sum(batch.size_bytes for batch in found)
        self._pause = len(found) < CHUNK_BATCHES and read < CHUNK_BYTES // 2
        self.behind = 0 if self._pause else max(self.behind - len(found), 1)
        batches: list[tuple[Batch, int]] = []
        for batch in found:
            if self._is_gap(batch):
                batches += [self._take(one) for one in await self._between(batch)]
            batches.append(self._take(batch))
        losses, gaps = self._continuity.notices.take()
        return Chunk(batches, losses, gaps) if batches or losses or gaps or skipped else None

    def _take(self, batch: Batch) -> tuple[Batch, int]:
        self._position, self._stored_ns = batch.stream_sequence + 1, batch.stored_ns
        self._newest = batch.boot_id, batch.last_sequence
        return batch, self._continuity.check(batch)

    def _is_gap(self, batch: Batch) -> bool:
        boot, number = self._newest
        return batch.boot_id == boot and batch.first_sequence > number + 1

    async def _between(self, batch: Batch) -> list[Batch]:
        """Return the node's batches between the last one and ``batch`` from another copy."""
        if self._history.replicas == 1:
            return []
        missing: list[Batch] = []
        at = self._position
        while at < batch.stream_sequence:
            found, damage = await self._history.fetch(at)
            for one in damage:
                self._log.warning("copy of the stream damaged", **one._asdict())
            if not found:
                break
            missing += [
                one
                for one in found
                if one.node_name == self._node and one.stream_sequence < batch.stream_sequence
            ]
            at = found[-1].stream_sequence + 1
        return missing

    async def _check_bounds(self, now: float) -> bool:
        bounds = await self._history.bounds()
        if bounds.last + 1 < self._position:
            self._start_over()
        if bounds.first > self._position:
            self._continuity.note_aged_out(0)  # how many of them were this node's is not known
            self._position = bounds.first
        seen_s, end = self._ends or (now, bounds.last)
        if self._ends is not None and now - seen_s < _SETTLED_S:
            return False
        self._ends = now, bounds.last
        return now - seen_s >= _SETTLED_S and await self._skip(end)

    # Otherwise the position of a quiet node would at some time be older than the oldest message,
    # and the deleted messages could have been this node's.
    async def _skip(self, end: int) -> bool:
        """Move after message ``end`` unless the node has earlier ones; return whether it moved."""
        if end < self._position or await self._history.fetch_node(self._node, self._position, 1):
            return False
        found = (await self._history.fetch(end, 1)).batches
        if not found or found[0].stream_sequence != end:
            return False
        self._position, self._stored_ns = end + 1, found[0].stored_ns
        return True

    async def measure(self) -> None:
        """Update the number of unread messages; it includes those of other nodes."""
        if not self._pause:
            await super().measure()

    async def _check_last(self, sequence: int) -> None:
        for batch in await self._history.last_of_each_node(sequence, self._node):
            self._continuity.check(batch)
            self._newest = batch.boot_id, batch.last_sequence
