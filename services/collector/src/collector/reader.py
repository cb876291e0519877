"""Wakes when the ring has records and hands them on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from collector.ring import Ring

# At once, so that a storm leaves the event loop time to publish.
DRAIN_RECORDS = 2048


class RingReader:
    """Drains the ring from the event loop: its file descriptor is readable when it is not empty."""

    def __init__(self, ring: Ring, handle: Callable[[list[bytes]], None]) -> None:
        self._ring = ring
        self._handle = handle
        self._failed: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Read until cancelled; raise what the handler raised."""
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        loop.add_reader(self._ring.fd, self._on_readable)
        try:
            await self._failed
        finally:
            loop.remove_reader(self._ring.fd)

    def _on_readable(self) -> None:
        assert self._failed
        if self._failed.done():
            return
        try:
            self._handle(self._ring.drain(DRAIN_RECORDS))
        except Exception as error:
            self._failed.set_exception(error)
