"""Publishes events in batches on the bus: numbered, acknowledged, kept while the bus is
unreachable.

One batch is under way at a time, and the events that come meanwhile are the next one. An idle host
sends single events at once; a busy one sends thousands together. This also keeps the order if a
request fails. If NATS accepts nothing for a second, or memory fills, events go to the spool on
disk, and are later read back in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from chassis.backoff import Backoff
from collector.delivery.backlog import Backlog
from collector.delivery.batch import room
from collector.delivery.segments import Run
from collector.delivery.sender import Sender
from collector.delivery.spilling import SPILL_AFTER_S, Spilling
from collector.delivery.spool import Spool
from collector.delivery.statistics import PublisherStatistics
from collector.delivery.stored import BATCH_MAX_EVENTS
from tetra.v1.node_pb2 import LossCounters

RETRY_MIN_S = 0.05
RETRY_MAX_S = 2.0

log = structlog.get_logger()


def _ignore(_base: int) -> None:
    """Ignore the number of the first event."""


class Publisher:
    """Publishes events in their order; the backlog holds them until they are acknowledged."""

    def __init__(
        self,
        own: Run,
        memory_bytes: int,
        loss: Callable[[], LossCounters],
        spool: Spool,
        statistics: PublisherStatistics | None = None,
        numbered: Callable[[int], None] = _ignore,
    ) -> None:
        """``own``: the numbers of this collector's events. ``loss`` returns totals of losses.

        ``numbered`` is called with the number of the first event before it is used.
        """
        self.own = own
        self.spool = spool
        self.statistics = statistics or PublisherStatistics()
        self.backlog = Backlog(own, memory_bytes, loss, spool, self.statistics)
        self._spilling = Spilling(self.backlog)
        self._sender = Sender(self.backlog, numbered)
        self._failing_since: float | None = None
        self._reconnected = asyncio.Event()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()

    def publish(self, events: Sequence[bytes], *, more: bool = False) -> None:
        """Queue events. If memory and disk are full, the oldest are dropped and counted.

        ``more``: the next call follows in a moment; until then these may wait, if they are few.
        """
        in_memory = self.backlog.events
        if not events:
            if in_memory and not more:
                self._wake.set()
            return
        self.backlog.add(events)
        self._spilling.check_memory()
        self._idle.clear()
        if not more or len(in_memory) >= BATCH_MAX_EVENTS:
            self._wake.set()

    def publish_loss(self) -> None:
        """Publish the totals of losses even if no event follows; call it when they have changed."""
        self._idle.clear()
        self._wake.set()

    def on_connection(self, connected: bool) -> None:
        """End the waits that a lost or a new connection makes pointless."""
        if connected:
            self._reconnected.set()
            return
        self._reconnected.clear()
        self._failing_since = self._failing_since or time.monotonic()
        self._sender.give_up()

    @property
    def waiting(self) -> int:
        """Events that are not acknowledged yet."""
        return self.backlog.size

    @property
    def waiting_in_memory(self) -> int:
        """Events that are in memory, and not in a batch."""
        return self.backlog.in_memory

    def held(self) -> list[bytes]:
        """Return the newest events that are in memory only, up to the last one, without a gap."""
        return self.backlog.held()

    @property
    def waiting_bytes(self) -> int:
        """The memory and disk space of the events that are not acknowledged."""
        return self.backlog.used_bytes + self.spool.size_bytes

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
            tasks.create_task(self._spilling.relieve_memory())

    async def flush(self, timeout_s: float) -> None:
        """Wait until all events are acknowledged, at most ``timeout_s``."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    def close(self) -> None:
        """Write the remaining events to disk; log those that it cannot store. Call after `run`."""
        self.backlog.disk.close()
        if self.waiting:
            self._spilling.close()
            if kept := self.spool.events:
                log.info("events kept on disk", events=kept)
            if lost := len(self.held()):
                log.warning("events not published", events=lost)
        self.spool.close()

    async def _publish_forever(self, connected: asyncio.Future[Client]) -> None:
        nc = await self._wait_connected(connected)
        while True:
            while self.waiting or self._sender.loss_is_due:
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
            if not connected.done() and self.backlog.events:
                await self._spilling.spill()
        return connected.result()

    async def _publish_next(self, nc: Client) -> None:
        """Publish one batch; return when all of it is acknowledged or on disk."""
        batch = self.backlog.batch or await self.backlog.take(room(nc))
        waits = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while batch is not None and batch.events:
            try:
                await self._sender.send_some(nc, batch)
                waits.reset()
                self._failing_since = None
                continue
            except (NatsError, OSError, TimeoutError) as error:
                self._sender.failed(error)
                self._report(error, waits)
            now = time.monotonic()
            self._failing_since = self._failing_since or now
            if now - self._failing_since >= SPILL_AFTER_S:
                batch = await self._spilling.spill_all(batch)
            await self._pause(waits.next_s())
        if batch is not None:
            await self.backlog.finish(batch)

    async def _publish_loss(self, nc: Client) -> None:
        """Publish the totals of losses alone; return when they are acknowledged or events wait."""
        waits = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while not self.waiting and self._sender.loss_is_due:
            try:
                await self._sender.send_loss(nc)
            except (NatsError, OSError, TimeoutError) as error:
                self._report(error, waits)
                await self._pause(waits.next_s())

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
