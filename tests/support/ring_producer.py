"""A ring's memory, laid out as the kernel does, and a writer in the kernel's place."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from struct import pack, pack_into

from collector.bpf.ring import Ring

PAGE = mmap.PAGESIZE
SIZE = 16 * PAGE


class Producer:
    """Writes records as kernel/bpf/ringbuf.c does."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * SIZE)
        self.memory = mmap.mmap(self.fd, 2 * PAGE + 2 * SIZE)
        self.position = 0

    def put(self, data: bytes, flags: int = 0) -> None:
        """Append a record; ``flags`` are those of its header."""
        # The data is mapped twice in a row: what does not fit at the end continues in the second.
        record = pack("<II", len(data) | flags, 0) + data
        for start in (0, SIZE):
            at = 2 * PAGE + start + self.position % SIZE
            room = self.memory[at : at + len(record)]
            self.memory[at : at + len(room)] = record[: len(room)]
        over = self.position % SIZE + 8 + len(data) - SIZE
        if over > 0:
            self.memory[2 * PAGE : 2 * PAGE + over] = record[-over:]
        self.position += (len(data) + 15) & ~7
        pack_into("<Q", self.memory, PAGE, self.position)


@contextmanager
def produced_ring() -> Iterator[tuple[Producer, Ring]]:
    """Return a producer and the ring that reads what it writes."""
    producer = Producer()
    ring = Ring(os.dup(producer.fd), SIZE)
    yield producer, ring
    ring.close()
    producer.memory.close()
    os.close(producer.fd)
