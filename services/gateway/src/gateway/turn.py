"""Turns on the event loop: a stream with much work lets other tasks run in between."""

from __future__ import annotations

import asyncio
from time import perf_counter

TURN_S = 0.005


class Turn:
    """The current turn of one stream."""

    def __init__(self) -> None:
        self._until = perf_counter() + TURN_S

    @property
    def over(self) -> bool:
        """Whether the stream has run long enough."""
        return perf_counter() >= self._until

    async def rest(self) -> None:
        """Let the other tasks run if the turn is over."""
        if perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = perf_counter() + TURN_S
