"""Reads the ring from the event loop, with few wake-ups.

The first record after an idle time is read at once. Then the ring is left alone for some
milliseconds, longer after more records. Records that arrive meanwhile cause no wake-up, not in the
kernel either, and are published together. A wake-up for each record cost ten times as much: in the
probes, here, in NATS and in the clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from collector.bpf.ring import Ring
from collector.clock import wall_offset_ns

# In one go, so that a storm leaves the event loop time to publish.
DRAIN_RECORDS = 2048
# How long the ring is left alone after some records: at 500 lives a second 4 ms, in a storm 40.
PAUSE_S = 0.003
PAUSE_PER_RECORD_S = 0.0001
PAUSE_MAX_S = 0.040


class RingReader:
    """Drains the ring from the event loop: its file descriptor is readable when it is not empty."""

    def __init__(
        self,
        ring: Ring,
        handle: Callable[[list[bytes], int], None],
        keep: Callable[[int, memoryview, int], None] | None = None,
    ) -> None:
        """``handle`` gets the records and what to add to the boot clock for the calendar's.

        Before it, ``keep`` gets that offset, the bytes of the ring and the position behind them.
        """
        self._ring = ring
        self._handle = handle
        self._keep = keep
        self._failed: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Read until cancelled; raise what the handler raised."""
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        loop.add_reader(self._ring.fd, self._on_readable)
        try:
            await self._failed
        finally:
            loop.remove_reader(self._ring.fd)
            if self._timer is not None:
                self._timer.cancel()

    def read(self) -> int:
        """Handle the records in the ring, up to a limit; return their number."""
        offset_ns = wall_offset_ns()
        keep = self._keep and partial(self._keep, offset_ns)
        records = self._ring.drain(DRAIN_RECORDS, keep)
        if records:
            self._handle(records, offset_ns)
        return len(records)

    def _on_readable(self) -> None:
        """Read after an idle time."""
        assert self._failed
        if not self._failed.done() and self._read():
            self._failed.get_loop().remove_reader(self._ring.fd)

    def _on_time(self) -> None:
        """Read after a pause; if the ring is empty, wait until the kernel reports records."""
        assert self._failed
        self._timer = None
        if not self._failed.done() and not self._read():
            self._failed.get_loop().add_reader(self._ring.fd, self._on_readable)

    def _read(self) -> bool:
        """Handle the records in the ring; return whether the next read is by a timer."""
        assert self._failed
        try:
            records = self.read()
        except Exception as error:
            self._failed.set_exception(error)
            return False
        if not records:
            return False
        pause_s = min(PAUSE_MAX_S, PAUSE_S + PAUSE_PER_RECORD_S * records)
        if records == DRAIN_RECORDS:
            pause_s = 0.0  # there is more
        self._timer = self._failed.get_loop().call_later(pause_s, self._on_time)
        return True
