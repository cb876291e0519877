"""Sends batches and tracks the stream's last number: no event is stored twice, none is skipped.

A request that fails may have stored its batch. Before the next request the sender asks the stream
for its last number.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from collector.delivery.backlog import Backlog
from collector.delivery.batch import Batch, room, send
from collector.delivery.numbering import last_in_stream
from collector.delivery.segments import Run
from tetra.v1.node_pb2 import LossCounters


@dataclass(slots=True)
class Sender:
    """Sends the events of a backlog, one request at a time.

    ``numbered`` is called with the number of the first event before it is used.
    """

    backlog: Backlog
    numbered: Callable[[int], None]
    _outcome_known: bool = False  # False: the stream may have what was sent last
    _asked: Run | None = None  # the run whose last number in the stream was asked for
    _stored: int = 0  # that number
    _reported_loss: LossCounters = field(default_factory=LossCounters)  # totals in the stream
    _scope: asyncio.Timeout | None = None  # of the request under way

    def give_up(self) -> None:
        """End the wait for an acknowledgement: the connection is lost."""
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    def failed(self, error: Exception) -> None:
        """Note that a request has failed."""
        # Without a responder there is no stream, and nothing was stored.
        self._outcome_known = isinstance(error, NoRespondersError)

    @property
    def loss_is_due(self) -> bool:
        """Whether the totals of losses have changed since they were published."""
        return self.backlog.loss() != self._reported_loss

    async def send_some(self, nc: Client, batch: Batch) -> None:
        """Publish as much of ``batch`` as one message holds, and remove it from the batch."""
        run, backlog = batch.run, self.backlog
        _check_connected(nc)
        if run is not self._asked or not self._outcome_known:
            await self._ask_stored(nc, run, batch.first)
        assert run.base is not None
        there = min(max(0, self._stored + 1 - run.base - batch.first), len(batch.events))
        if there:  # only the acknowledgement was lost
            backlog.acknowledged(batch, there)
            return
        part = backlog.next_part(batch, room(nc))
        if not part:
            return
        self._outcome_known = False
        start = time.monotonic()
        try:
            async with asyncio.timeout(None) as self._scope:
                await send(nc, run, run.base + batch.first, batch.loss, part)
        finally:
            self._scope = None
        self._outcome_known = True
        self._stored = run.base + batch.first + len(part) - 1
        if run is backlog.own:
            self._reported_loss = batch.loss
        backlog.statistics.sent(time.monotonic() - start)
        backlog.acknowledged(batch, len(part))

    async def send_loss(self, nc: Client) -> None:
        """Publish the totals of losses alone; without a number yet, only ask for it."""
        loss, run, index = self.backlog.loss(), self.backlog.own, self.backlog.statistics.made
        _check_connected(nc)
        if run.base is None:
            await self._ask_stored(nc, run, index)
            return  # events may have come meanwhile
        await send(nc, run, run.base + index, loss, [])
        self._reported_loss = loss

    async def _ask_stored(self, nc: Client, run: Run, index: int) -> None:
        stored = await last_in_stream(nc, run, index)
        # The last message may be totals of losses that were sent before an acknowledged batch.
        self._stored = max(stored, self._stored) if run is self._asked else stored
        self._asked, self._outcome_known = run, True
        if run.base is None:
            base, disk = max(self._stored + 1, run.least_base), self.backlog.disk
            async with disk.lock:
                await disk.run(self.backlog.spool.number, run, base)
            if run is self.backlog.own:
                self.numbered(base)


def _check_connected(nc: Client) -> None:
    if not nc.is_connected:  # the client would keep the message and send it late
        raise NatsError("not connected")
