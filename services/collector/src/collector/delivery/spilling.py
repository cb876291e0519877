"""Moves events from memory to disk: if memory fills, in an outage of the bus, at the end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog

from collector.delivery.backlog import Backlog
from collector.delivery.batch import Batch
from collector.delivery.stored import body, first_record, memory_of

# An outage may last this long before events go to disk: longer than the restart of a server.
SPILL_AFTER_S = 1.0
# Events go to disk above this part of the memory limit; at the limit the oldest are dropped.
SPILL_ABOVE = 0.75

log = structlog.get_logger()


@dataclass(slots=True)
class Spilling:
    """Writes the events of a backlog to its spool, oldest first."""

    backlog: Backlog
    _memory_filled: asyncio.Event = field(default_factory=asyncio.Event)

    def check_memory(self) -> None:
        """Have events moved if they take too much memory; above the limit drop the oldest."""
        backlog = self.backlog
        if backlog.used_bytes > backlog.memory_bytes * SPILL_ABOVE:
            self._memory_filled.set()
            backlog.drop_oldest()

    async def relieve_memory(self) -> None:
        """Move events to disk whenever memory fills, until cancelled."""
        while True:
            await self._memory_filled.wait()
            self._memory_filled.clear()
            async with self.backlog.disk.lock:
                await self._keep_batch()  # it must be on disk before newer events
            if not await self.spill(int(self.backlog.memory_bytes * SPILL_ABOVE / 2)):
                await asyncio.sleep(SPILL_AFTER_S)

    async def spill(self, keep_bytes: int = 0) -> bool:
        """Move the oldest events from memory to disk; return False if it does not take them.

        Events that arrive meanwhile stay in memory; otherwise this would not end on a busy host
        with a slow disk.
        """
        backlog = self.backlog
        end = backlog.statistics.made
        while backlog.events and (
            backlog.used_bytes > keep_bytes if keep_bytes else backlog.index < end
        ):
            async with backlog.disk.lock:
                if not backlog.events:
                    break
                large = backlog.used_bytes > backlog.memory_bytes * SPILL_ABOVE / 2
                first, moving = backlog.index, first_record(backlog.events, large=large)
                backlog.moving = moving
                for _ in moving:
                    backlog.events.popleft()
                data = body(backlog.loss(), moving)
                written = await backlog.disk.run(
                    backlog.spool.append, backlog.own, first, len(moving), data
                )
                self._settle_move(first, written)
            if not written:
                return False
        return True

    async def spill_all(self, batch: Batch) -> Batch | None:
        """Move everything to disk; return the batch if the disk cannot store it."""
        async with self.backlog.disk.lock:
            if batch.record is None and await self._keep_batch():
                self.backlog.batch = None  # it is read back, with its number
        await self.spill()
        return self.backlog.batch

    def close(self) -> None:
        """Write what is in memory to disk, without the event loop."""
        backlog = self.backlog
        batch = backlog.batch
        if batch and batch.record is None and batch.events and not backlog.spool.events:
            written = backlog.spool.append(
                backlog.own, batch.first, len(batch.events), body(batch.loss, batch.events)
            )
            if written:
                backlog.used_bytes -= memory_of(batch.events)
                backlog.batch = None
        while backlog.events and self._write_oldest():
            pass

    def _write_oldest(self) -> bool:
        backlog = self.backlog
        part = first_record(backlog.events)
        data = body(backlog.loss(), part)
        if not backlog.spool.append(backlog.own, backlog.index, len(part), data):
            return False
        for _ in part:
            backlog.events.popleft()
        backlog.used_bytes -= memory_of(part)
        return True

    async def _keep_batch(self) -> bool:
        """Write the batch under way to disk too; return whether it is there.

        If newer events are on disk already, it stays in memory, before them.
        """
        backlog = self.backlog
        batch, spool = backlog.batch, backlog.spool
        if batch is None or not batch.events or batch.record is not None:
            return batch is None or batch.record is not None
        if spool.events:
            return False
        first, events = batch.first, list(batch.events)
        data = body(batch.loss, events)
        if not await backlog.disk.run(spool.append, backlog.own, first, len(events), data):
            return False
        if backlog.batch is batch:  # else all of it was acknowledged meanwhile
            backlog.used_bytes -= memory_of(batch.events)
            batch.record = await backlog.disk.run(spool.peek)
        return True

    def _settle_move(self, first: int, written: bool) -> None:
        """Account for events from index ``first`` on that were written to disk, or were not."""
        backlog = self.backlog
        moved, backlog.moving = backlog.moving, []
        if not written and backlog.index == first + len(moved):
            backlog.events.extendleft(reversed(moved))
            return
        backlog.used_bytes -= memory_of(moved)
        if not written:  # newer ones were dropped meanwhile
            backlog.statistics.dropped += len(moved)
