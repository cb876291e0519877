"""A line on the terminal that shows how much of the past was read."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from cli.words import grouped

_DELAY_S = 1.0  # shorter reads show no line
_EVERY_S = 0.25
_CLEAR = "\r\x1b[K"


class ProgressLine:
    """Shows progress on stderr where that is a terminal; `clear` before anything is printed."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._enabled = not quiet and self._stream.isatty()
        self._next_at = time.monotonic() + _DELAY_S
        self._shown = False

    def show(self, done: int, total: int) -> None:
        """Show how many messages were read, of those that are to be read at most."""
        if not self._enabled:
            return
        if done >= total:
            self.clear()
            return
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + _EVERY_S
        self._shown = True
        percent = done * 100 // total
        self._write(f"{_CLEAR}tetra: reading the past: {percent} % of {grouped(total, 'message')}")

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            self._shown = False
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
