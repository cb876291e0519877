"""Tools for compact lines: colours, quoting, the parts that all kinds share.

Parts of a line are joined by one space, and the separators of an absent part remain. Quirks of
Tetragon's client are reproduced; a comment names each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chassis.goquote import escaped
from cli.terminal import visible
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process

_TRAILER_COLUMN = 120  # bytes of line and trailer together
# CAP_SYS_ADMIN is number 21. Quirk: Tetragon tests how many there are, not which.
_TRAILER_CAPS = 22


@dataclass(frozen=True, slots=True)
class CompactOptions:
    """What else a line may show."""

    colour: bool = False
    timestamps: bool = False
    stack_traces: bool = True
    ima_hash: bool = True
    # As Tetragon does since July 2026; its releases up to 1.7.0 print texts as they are.
    quote: bool = True
    # Escape control characters of terminals also where Tetragon does not quote.
    guard: bool = False


class Pen:
    """Writes the parts of compact lines."""

    def __init__(self, options: CompactOptions) -> None:
        """Choose colours and quoting by ``options``."""
        self.options = options
        bare = visible if options.guard else str
        # For texts that processes choose.
        self.quote: Callable[[str], str] = quote if options.quote else bare
        # For texts that Tetragon never quotes.
        self.plain: Callable[[str], str] = bare
        self.red, self.green, self.yellow, self.blue, self.magenta, self.cyan = (
            _painter(code if options.colour else 0) for code in range(31, 37)
        )

    def label(self, emoji: str, word: str) -> str:
        """Return the beginning of a line, in blue."""
        return self.blue(self.label_text(emoji, word))

    @staticmethod
    def label_text(emoji: str, word: str) -> str:
        """Return the beginning of a line, without a colour."""
        return f"{emoji} {word:<7}"

    def line(
        self, event: GetEventsResponse, process: Process, emoji: str, word: str, *parts: str
    ) -> str:
        """Return a whole line: label, where it happened, binary, ``parts``, capabilities."""
        line = " ".join((self.label(emoji, word), self._source(event, process), *parts))
        admin = len(process.cap.effective) >= _TRAILER_CAPS
        trailer = self.magenta("🛑 CAP_SYS_ADMIN" if admin else "")
        if not trailer:
            return line + "\n"
        # Quirk: with colours an empty trailer still has its escapes, so every line is padded.
        width = max(0, _TRAILER_COLUMN - len(line.encode()))
        return f"{line} {trailer:>{width}}\n" if width else f"{line} {trailer}\n"

    def _source(self, event: GetEventsResponse, process: Process) -> str:
        if process.HasField("pod"):
            source = self.plain(f"{process.pod.namespace}/{process.pod.name}")
        else:
            source = self.quote(event.node_name)
        return f"{self.green(source)} {self.magenta(self.quote(process.binary))}"


def quote(text: str) -> str:
    """Return ``text``, as a Go string literal if it has a space or anything unprintable."""
    if " " not in text and text.isprintable():
        return text
    return f'"{escaped(text)}"'


def _painter(code: int) -> Callable[[str], str]:
    if not code:
        return str
    return lambda text: f"\x1b[{code}m{text}\x1b[0m"
