"""JSON lines on standard output, for whatever collects a container's log."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

from exporter.errors import SinkError
from exporter.sinks.base import PART_BYTES, Line


class Stdout:
    """Writes and waits until the reader of the pipe has room."""

    settle_s = 0.0
    part_bytes = PART_BYTES
    max_batch = 1000

    async def open(self, mark: dict[str, Any]) -> None:
        """Nothing to open."""

    async def deliver(self, lines: Sequence[Line]) -> int:
        """Write the lines; raise `SinkError` where the reader is gone."""
        data = "".join([f"{line.text}\n" for line in lines]).encode()
        try:
            await asyncio.to_thread(_write_all, sys.stdout.fileno(), data)
        except OSError as error:
            raise SinkError(f"standard output: {error.strerror}") from None
        return 0

    async def mark(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    async def close(self) -> None:
        """Nothing to close."""


def _write_all(fd: int, data: bytes) -> None:
    at = 0
    while at < len(data):
        at += os.write(fd, memoryview(data)[at:])
