"""Reads the ring from the event loop, with few wake-ups.

The ring has two states. *Idle*: it is empty, and the next record wakes the reader. *Paused*: the
reader reads again when a timer ends (`Pace`), and records cause no wake-up, not even in the kernel,
unless the ring becomes a quarter full (bpf/lib/ring.h). The records of one read are published
together.

How the kernel decides (kernel/bpf/ringbuf.c, bpf_ringbuf_commit()): it wakes for a record that is
the first one the consumer has not freed, or that was written with BPF_RB_FORCE_WAKEUP. So a paused
reader keeps the last record that it has read, and frees it when it becomes idle. The descriptor is
watched edge-triggered: only wake-ups count, not records that are already in the ring.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from functools import partial
from typing import Protocol

from collector.bpf.ring import Keep, Ring
from collector.clock import wall_offset_ns

# At most so many at once, so that other tasks of the event loop run during a storm.
DRAIN_RECORDS = 2048

Handle = Callable[[list[bytes], int, bool], None]


class Pauses(Protocol):
    """See `Pace`."""

    def first_pause_s(self) -> float:
        """Return the delay before the first record after an idle time is read."""

    def pause_s(self, records: int, read_bytes: int, past_s: float) -> float:
        """Return the pause after ``records`` that came in ``past_s`` seconds."""


class RingReader:
    """Drains the ring from the event loop."""

    def __init__(
        self,
        ring: Ring,
        handle: Handle,
        pace: Pauses,
        keep: Callable[[int, memoryview, int], None] | None = None,
    ) -> None:
        """``handle`` gets records, what to add to the boot clock for the calendar's, and whether
        more follow in a moment; then it is called again, if only with no record.

        Before it, ``keep`` gets that offset, the bytes of the ring and the position behind them.
        """
        self._ring = ring
        self._handle = handle
        self._pace = pace
        self._keep = keep
        self._failed: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._epoll = select.epoll()
        self._looked_s = 0.0
        self._more = False  # the handler has received only a part of this read

    async def run(self) -> None:
        """Read until cancelled; raise what the handler raised."""
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        self._looked_s = loop.time()
        self._epoll.register(self._ring.fd, select.EPOLLIN | select.EPOLLET)
        loop.add_reader(self._epoll.fileno(), self._on_wake)
        try:
            await self._failed
        finally:
            loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            if self._timer is not None:
                self._timer.cancel()

    def end_pause(self) -> None:
        """Read at once what came in the pause that is under way."""
        if self._timer is not None and self._failed and not self._failed.done():
            self._timer.cancel()
            self._look()

    def read(self) -> int:
        """Handle the records in the ring, up to a limit, and free their room; return the number."""
        return len(self._drain(hold=False))

    def _drain(self, *, hold: bool) -> list[bytes]:
        offset_ns = wall_offset_ns()
        keep: Keep | None = self._keep and partial(self._keep, offset_ns)
        records = self._ring.drain(DRAIN_RECORDS, keep, hold=hold)
        before, self._more = self._more, len(records) == DRAIN_RECORDS
        if records or before:
            self._handle(records, offset_ns, self._more)
        return records

    def _on_wake(self) -> None:
        """Read after an idle time, or because the ring is a quarter full."""
        assert self._failed
        self._epoll.poll(0)  # clears the readiness that has woken the reader
        if self._failed.done():
            return
        if self._timer is not None:
            self._timer.cancel()
        elif pause_s := self._pace.first_pause_s():
            self._looked_s = self._failed.get_loop().time()
            self._timer = self._failed.get_loop().call_later(pause_s, self._look)
            return
        self._look()

    def _look(self) -> None:
        """Handle the records in the ring and begin a pause, or become idle if there are none."""
        assert self._failed
        self._timer = None
        if self._failed.done():
            return
        loop = self._failed.get_loop()
        before = self._ring.position
        try:
            records = self._drain(hold=True)
        except Exception as error:
            self._failed.set_exception(error)
            return
        now_s = loop.time()
        past_s, self._looked_s = now_s - self._looked_s, now_s
        if records:
            pause_s = 0.0  # there is more
            if len(records) < DRAIN_RECORDS:
                pause_s = self._pace.pause_s(len(records), self._ring.position - before, past_s)
            self._timer = loop.call_later(pause_s, self._look)
            return
        self._ring.release()
        # Checks the ring again, after a memory barrier (fs/eventpoll.c, ep_modify()): a record that
        # arrived before the release, without a wake-up, now causes one.
        self._epoll.modify(self._ring.fd, select.EPOLLIN | select.EPOLLET)
