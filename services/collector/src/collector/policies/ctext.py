"""Pieces of C text: lines with indentation, literals, comments that quote the policy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

_WIDTH = 96


@dataclass(slots=True)
class Lines:
    """Lines of one C function, or of a block in it."""

    lines: list[str] = field(default_factory=list)
    depth: int = 1

    def add(self, *lines: str) -> None:
        """Append lines; one without text is empty."""
        self.lines += ["\t" * self.depth + line if line else "" for line in lines]

    def label(self, name: str) -> None:
        """Append a label."""
        self.lines.append("\t" * (self.depth - 1) + f"{name}:")

    def comment(self, text: str) -> None:
        """Append a comment of one line, cut to a readable width."""
        self.add(comment(text))

    def text(self) -> str:
        """Return the lines joined."""
        return "\n".join(self.lines)


def comment(text: str) -> str:
    """Return ``text`` as a comment of one line; what could end it is defused."""
    clean = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    clean = clean.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")
    clean = clean.rstrip("\\")
    return f"/* {clean if len(clean) <= _WIDTH else clean[: _WIDTH - 3] + '...'} */"


def quoted(raw: bytes) -> str:
    """Return bytes of a policy for a comment."""
    return '"' + raw.decode("utf-8", "backslashreplace") + '"'


def unsigned(value: int) -> str:
    """Return a 64-bit literal of a value, negative ones as two's complement."""
    value &= (1 << 64) - 1
    return f"{value}ull" if value < 1 << 16 else f"{value:#x}ull"


def signed(value: int) -> str:
    """Return a signed 64-bit literal."""
    if value == -(1 << 63):
        return "(-0x7fffffffffffffffll - 1)"
    return f"{value}ll"


def any_of(conditions: Iterable[str]) -> str:
    """Return the disjunction of C conditions; of none: false."""
    found = list(conditions)
    if not found:
        return "false"
    return found[0] if len(found) == 1 else "(" + " || ".join(found) + ")"


def all_of(conditions: Iterable[str]) -> str:
    """Return the conjunction of C conditions; of none: true."""
    found = list(conditions)
    if not found:
        return "true"
    return found[0] if len(found) == 1 else "(" + " && ".join(found) + ")"


def negated(condition: str) -> str:
    """Return the negation of a C condition."""
    if condition in ("true", "false"):
        return "false" if condition == "true" else "true"
    if condition.startswith("(") and condition.endswith(")") and _closes_at_end(condition):
        return f"!{condition}"
    return f"!({condition})"


def _closes_at_end(text: str) -> bool:
    """Return whether the first parenthesis is closed by the last one."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return place == len(text) - 1
    return False
