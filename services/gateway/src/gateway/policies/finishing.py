"""Work that has to be completed even if the call that began it is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field

from eventstream.errors import BusError
from gateway.errors import RequestError

_CLOSE_S = 1.0


@dataclass(slots=True)
class Finishing:
    """Runs it, and waits for it when the gateway stops."""

    _tasks: set[asyncio.Future[object]] = field(default_factory=set)

    async def run(self, ending: Coroutine[None, None, object]) -> None:
        """Carry it out even if this task is cancelled; what NATS refuses is not done."""
        task = asyncio.ensure_future(ending)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(RequestError, BusError):
            await asyncio.shield(task)

    async def close(self) -> None:
        """Wait until what was cancelled is finished."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_S)
