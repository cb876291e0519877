"""Where something stands in a policy document, and what is wrong there.

PolicyErrors
    Raised once for a document, with every `Mistake` that was found in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a document; lines and columns count from 1, columns in characters."""

    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mapping of the document begins, and where the value of each of its keys begins."""

    start: Position = Position()
    keys: tuple[tuple[str, Position], ...] = ()

    def of(self, *path: str | int) -> Position:
        """Return where the value of a key begins, or the mapping if the key is absent.

        An element of a list is addressed as ``of("values", 2)``.
        """
        name = ".".join(map(str, path))
        return next((position for key, position in self.keys if key == name), self.start)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong in a document, or that this kernel cannot do."""

    file: str
    line: int
    column: int
    message: str
    allowed: str = ""  # what is allowed instead, "" where the message says all

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: {self.message}"
        return f"{where} (allowed: {self.allowed})" if self.allowed else where


@dataclass
class PolicyErrors(Exception):
    """Every mistake of one document, sorted by position."""

    mistakes: tuple[Mistake, ...] = field(default=())

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        unique = set(mistakes)
        self.mistakes = tuple(sorted(unique, key=lambda x: (x.file, x.line, x.column, x.message)))
        super().__init__(self.mistakes)

    def __str__(self) -> str:
        return "\n".join(map(str, self.mistakes))
