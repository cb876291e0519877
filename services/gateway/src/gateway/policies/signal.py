"""A condition that changed: wakes all current waiters, but no later one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Signal:
    """Wakes the waiters; each checks the state itself."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake all that wait now."""
        self._event.set()
        self._event = asyncio.Event()

    @property
    def event(self) -> asyncio.Event:
        """The event of the next `set`: get it before you check the state, then none is missed."""
        return self._event


async def any_of(events: Iterable[asyncio.Event], timeout_s: float) -> None:
    """Return when one of the events is set, or after ``timeout_s``."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()
