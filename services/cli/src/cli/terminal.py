"""Output to terminals: colours where they are wanted, and never control characters."""

import errno
import os
import re
import sys
from typing import BinaryIO, Literal, TextIO

from cli.errors import TetraError

ColourMode = Literal["auto", "always", "never"]

_NAMED_ESCAPES = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}


def wants_colour(mode: ColourMode, stream: TextIO) -> bool:
    """Return whether ``stream`` gets colours; ``NO_COLOR`` and ``TERM=dumb`` turn ``auto`` off."""
    if mode != "auto":
        return mode == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    if char == " " or char.isprintable():
        return char
    code = ord(char)
    if char in _NAMED_ESCAPES:
        return _NAMED_ESCAPES[char]
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


_SUSPECT = re.compile(r"[^ -~]")


def visible(text: str) -> str:
    """Return ``text`` with everything that is not printable as an escape, such as ``\\x1b``.

    Not printable are controls, line separators and the characters that turn the writing
    direction around; spaces and every script stay as they are.
    """
    return text if text.isprintable() else _SUSPECT.sub(_escape, text)


def terminal_width() -> int | None:
    """Return the columns of the terminal behind stdout; None where there is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        return None


def cell_count(text: str) -> int:
    """Return how many columns printable ``text`` takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


class Fit:
    """Cuts printable texts to columns of a terminal, in what its locale can write."""

    def __init__(self, *, unicode: bool) -> None:
        self._unicode = unicode
        self._mark = "…" if unicode else "..."

    def __call__(self, text: str, width: int) -> str:
        """Return ``text`` if it fits, else as much as does, with a mark at the end."""
        if not self._unicode:
            text = text.encode("ascii", "backslashreplace").decode()
        if text.isascii():  # one column each
            if len(text) <= width:
                return text
            return (text[: max(0, width - len(self._mark))] + self._mark)[: max(0, width)]
        from rich.cells import cell_len, set_cell_size

        if cell_len(text) <= width:
            return text
        room = max(0, width - len(self._mark))
        return (set_cell_size(text, room).rstrip(" ") + self._mark)[: max(0, width)]

    def padded(self, text: str, width: int) -> str:
        """Return the part of ``text`` that fits, padded with blanks to ``width``."""
        from rich.cells import set_cell_size

        return set_cell_size(self(text, width), max(0, width))


class Output:
    """Standard output as bytes: one write and one flush for each batch."""

    def __init__(self, stream: BinaryIO, encoding: str = "utf-8") -> None:
        self._stream = stream
        self._encoding = encoding
        self.unicode = encoding.lower().replace("-", "").replace("_", "") == "utf8"

    @classmethod
    def stdout(cls, *, exact: bool = False) -> "Output":
        """Return standard output in the locale's encoding; raise `TetraError` if it is closed.

        ``exact`` means UTF-8 in files and pipes, whatever the locale; a terminal always gets its
        own encoding.
        """
        if sys.stdout is None:
            raise TetraError("write: standard output: it is closed")
        encoding = sys.stdout.encoding or "utf-8"
        return cls(sys.stdout.buffer, encoding if sys.stdout.isatty() or not exact else "utf-8")

    def write(self, text: str | bytes) -> None:
        """Write and flush; raise `BrokenPipeError` when the reader has closed the pipe."""
        if not text:
            return
        if isinstance(text, str):
            # Characters the locale cannot write become escapes instead of an exception.
            text = text.encode(self._encoding, "backslashreplace")
        self._stream.write(text)
        self._stream.flush()


def notice(text: str) -> None:
    """Print one line about the run itself on stderr; standard output is for events alone."""
    try:
        print(f"tetra: {visible(text)}", file=sys.stderr, flush=True)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
