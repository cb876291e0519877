"""What a terminal may be sent: colours where they are wanted, no control characters ever."""

import errno
import os
import re
import sys
from typing import BinaryIO, Literal, TextIO

from cli.errors import TetraError

ColourMode = Literal["auto", "always", "never"]

_NAMED_ESCAPES = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}


def wants_colour(mode: ColourMode, stream: TextIO) -> bool:
    """Tell whether ``stream`` gets colours; ``NO_COLOR`` and ``TERM=dumb`` turn ``auto`` off."""
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


class Output:
    """Standard output as bytes: one write and one flush for each batch."""

    def __init__(self, stream: BinaryIO, encoding: str = "utf-8") -> None:
        self._stream = stream
        self._encoding = encoding
        self.unicode = encoding.lower().replace("-", "").replace("_", "") == "utf8"

    @classmethod
    def stdout(cls, *, exact: bool = False) -> "Output":
        """Return standard output in the locale's encoding; raise `TetraError` if it is closed.

        ``exact`` means UTF-8 in files and pipes whatever the locale: a terminal alone has to be
        spoken to in its own encoding.
        """
        if sys.stdout is None:
            raise TetraError("write: standard output: it is closed")
        encoding = sys.stdout.encoding or "utf-8"
        return cls(sys.stdout.buffer, encoding if sys.stdout.isatty() or not exact else "utf-8")

    def write(self, text: str | bytes) -> None:
        """Write and flush; raise `BrokenPipeError` when the reader has gone."""
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
