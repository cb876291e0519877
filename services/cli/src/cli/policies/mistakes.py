"""Mistakes of documents as text: a line each, and on a terminal the line that is meant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from cli.terminal import visible

if TYPE_CHECKING:
    from tracingpolicy import Mistake

_ALLOWED_CHARS = 120
_MARK_COLUMNS = 100  # longer lines of a document are not shown


def mistake_line(mistake: Mistake) -> str:
    """Return the line of a mistake for a person: a long list of what is allowed is cut."""
    allowed = mistake.allowed
    if len(allowed) > _ALLOWED_CHARS:
        allowed = allowed[:_ALLOWED_CHARS].rpartition(", ")[0] + ", ..."
    return str(replace(mistake, allowed=allowed))


class MistakeText:
    """Writes mistakes; ``excerpts``: with the document's line and a mark below the place."""

    def __init__(self, *, colour: bool = False, excerpts: bool = False) -> None:
        self._colour = colour
        self._excerpts = excerpts

    def __call__(self, mistakes: Iterable[Mistake], text: bytes) -> str:
        """Return the lines for the mistakes of one document."""
        source = text.decode(errors="replace").splitlines()
        return "".join(self._lines(mistake, source) for mistake in mistakes)

    def _lines(self, mistake: Mistake, source: list[str]) -> str:
        text = mistake_line(mistake) if self._excerpts else str(mistake)
        line = f"{visible(text)}\n"
        if self._colour:
            where, rest = line.split(": ", 1)
            line = f"\x1b[1m{where}:\x1b[0m \x1b[31m{rest.rstrip()}\x1b[0m\n"
        if not self._excerpts or not 1 <= mistake.line <= len(source):
            return line
        shown = source[mistake.line - 1]
        if len(shown) > _MARK_COLUMNS or not shown.isprintable() or not shown.isascii():
            return line
        mark = f"{' ' * (mistake.column - 1)}^"
        if self._colour:
            mark = f"\x1b[32m{mark}\x1b[0m"
        return f"{line}{mistake.line:>6} | {shown}\n{'':>6} | {mark}\n"
