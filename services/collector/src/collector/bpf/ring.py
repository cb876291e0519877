"""Reading the BPF ring buffer from its mapped memory.

Layout (kernel/bpf/ringbuf.c): one page with the consumer's position, one with the producer's, then
the data, mapped twice in a row so that a record never wraps. A record is a length with two flag
bits, four more bytes, the data, padded to eight.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from struct import Struct
from threading import Lock

_LENGTH = Struct("@I")
_BUSY = 1 << 31  # BPF_RINGBUF_BUSY_BIT: reserved, not yet written
_DISCARDED = 1 << 30  # BPF_RINGBUF_DISCARD_BIT
_HEADER = 8

Keep = Callable[[memoryview, int], None]


def records_in(data: bytes) -> list[bytes]:
    """Return the records in a part of a ring that `Ring.drain` gave to ``keep``."""
    spans, end = _spans(data, 0, len(data), len(data))
    if end != len(data):
        raise ValueError(f"ring: no record at byte {end} of {len(data)}")
    return [data[start:stop] for start, stop in spans]


def _spans(
    memory: bytes | mmap.mmap, at: int, end: int, limit: int
) -> tuple[list[tuple[int, int]], int]:
    """Return where at most ``limit`` records of ``memory[at:end]`` lie, and where they end."""
    spans: list[tuple[int, int]] = []
    length_at = _LENGTH.unpack_from
    while at + _HEADER <= end and len(spans) < limit:
        (length,) = length_at(memory, at)
        if length & _BUSY:
            break
        size = length & ~_DISCARDED
        if not length & _DISCARDED:
            spans.append((at + _HEADER, at + _HEADER + size))
        at += (size + _HEADER + 7) & ~7
    return spans, at


class Ring:
    """Owns the ring's file descriptor, which is readable when there are records."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self.fd = fd
        self._size = size_bytes
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._consumer = mmap.mmap(
            fd, self._page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE
        )
        self._producer = mmap.mmap(
            fd, self._page + 2 * size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=self._page
        )
        # The kernel reads and writes these at the same time: they must be loaded and stored
        # atomically. A view of native integers does that; the struct module's "<Q" copies byte by
        # byte, and a half-written position looks like a full ring.
        self._consumer_position = memoryview(self._consumer)[:8].cast("Q")
        self._producer_position = memoryview(self._producer)[:8].cast("Q")
        self._position: int = self._consumer_position[0]
        self._memory = memoryview(self._producer)
        self._barrier = Lock()
        self._barrier.acquire()

    @property
    def size_bytes(self) -> int:
        """The room for records."""
        return self._size

    @property
    def position(self) -> int:
        """Bytes that were read since the ring was made."""
        return self._position

    def seek(self, position: int) -> None:
        """Continue at ``position``: an earlier reader read up to it without freeing the room."""
        if not self._position <= position <= self._producer_position[0]:
            raise ValueError(f"ring: {position}: not between {self._position} and the newest")
        self._consumer_position[0] = self._position = position

    def drain(
        self, limit: int = 4096, keep: Keep | None = None, *, hold: bool = False
    ) -> list[bytes]:
        """Return the records that are there, at most ``limit``, and free their room.

        Before that ``keep`` gets them as they lie in the ring, and the position behind them. With
        ``hold`` the room of the last one stays taken until the next call or `release`: for the
        kernel the reader is then behind, so new records do not wake it.
        """
        position, mask = self._position, self._size - 1
        end = self._producer_position[0]
        if position == end:
            return []
        self._fence()
        start = self._page + (position & mask)
        spans, stop = _spans(self._producer, start, start + end - position, limit)
        self._fence()
        records = [self._producer[first:last] for first, last in spans]
        held = stop - spans[-1][0] + _HEADER if hold and spans else 0
        position += stop - start
        if stop > start and keep is not None:
            with self._memory[start:stop] as view:
                keep(view, position)
        self._fence()
        self._consumer_position[0] = position - held
        self._position = position
        return records

    def release(self) -> None:
        """Free the room of all records that were read."""
        self._fence()
        self._consumer_position[0] = self._position

    # All reads above must be complete before the room is freed, on arm64 too. Python has no memory
    # barrier, but releasing and acquiring a lock orders all accesses around it.
    def _fence(self) -> None:
        self._barrier.release()
        self._barrier.acquire()

    def close(self) -> None:
        """Unmap and close."""
        self._memory.release()
        self._consumer_position.release()
        self._producer_position.release()
        self._consumer.close()
        self._producer.close()
        os.close(self.fd)
