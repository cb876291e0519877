"""The mistakes of one document while it is read, and what in it is doubtful."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tracingpolicy.position import Mistake, Position


class Report:
    """Collects mistakes; the same one twice counts once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.mistakes: dict[Mistake, None] = {}
        self.doubts: dict[str, None] = {}

    def doubt(self, text: str) -> None:
        """Note what is no mistake, and hardly what the author meant."""
        self.doubts[text] = None

    def add(self, where: Position, message: str, allowed: str = "") -> None:
        """Note one mistake."""
        self.mistakes[Mistake(self.file, where.line, where.column, message, allowed)] = None


def quoted(text: object) -> str:
    """Return a text in double quotes, one line, cut to 80 characters."""
    body = str(text)
    body = body if len(body) <= 80 else body[:77] + "..."
    escaped = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in body)
    return f'"{escaped}"'


def nearest(word: str, names: Iterable[str], count: int = 3, least: float = 0.6) -> list[str]:
    """Return the names that are most like a word, the best first; ``least``: 0 any, 1 the same."""
    candidates = {name.lower(): name for name in names}
    found = difflib.get_close_matches(word.lower()[:200], candidates, count, least)
    return [candidates[name] for name in found]


def suggestion(word: str, names: Iterable[str]) -> str:
    """Return "; did you mean ...?", or nothing."""
    found = nearest(word, names, 1)
    return f"; did you mean {quoted(found[0])}?" if found else ""
