"""JSON lines on standard output, for a collector of container logs."""

from __future__ import annotations

import asyncio
import os
import select
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from exporter.errors import SinkError
from exporter.sinks.base import PART_BYTES, Line

# A write of up to this size to a pipe is atomic, and a pipe is writable only while it has room for
# that much (pipe(7)): so a kill leaves no partial line, and a write does not block. Longer lines
# can be cut.
_WRITE_BYTES = select.PIPE_BUF
_WAIT_MIN_S, _WAIT_MAX_S = 0.001, 0.05  # between checks of a full pipe


class Stdout:
    """Writes and waits until the reader of the pipe has room."""

    settle_s = 0.0
    part_bytes = PART_BYTES
    max_batch = 1000

    async def open(self, mark: dict[str, Any]) -> None:
        """Nothing to open."""

    async def deliver(self, lines: Sequence[Line]) -> int:
        """Write the lines; raise `SinkError` if the reader has closed the pipe."""
        fd = sys.stdout.fileno()
        try:
            for data in _writes(lines):
                await _write(fd, data)
        except OSError as error:
            raise SinkError(f"standard output: {error.strerror}") from None
        return 0

    async def mark(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    async def close(self) -> None:
        """Nothing to close."""


def _writes(lines: Sequence[Line]) -> Iterator[bytes]:
    """Yield the lines, as many at once as one write takes."""
    together = b""
    for line in lines:
        data = f"{line.text}\n".encode()
        if together and len(together) + len(data) > _WRITE_BYTES:
            yield together
            together = b""
        together += data
    if together:
        yield together


# Not in a thread: one that waits for a frozen reader would hold up the end of the process.
async def _write(fd: int, data: bytes) -> None:
    room = select.poll()
    room.register(fd, select.POLLOUT)
    left = memoryview(data)
    while left:
        wait_s = _WAIT_MIN_S
        while not room.poll(0):
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _WAIT_MAX_S)
        left = left[os.write(fd, left[:_WRITE_BYTES]) :]
