"""A condition that changed: every waiter of now is woken, none that comes later."""

from __future__ import annotations

import asyncio


class Signal:
    """Wakes those that wait; a waiter looks at the state itself."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake all that wait now."""
        self._event.set()
        self._event = asyncio.Event()

    @property
    def event(self) -> asyncio.Event:
        """The event of the next `set`: taken before the state is looked at, nothing is missed."""
        return self._event
