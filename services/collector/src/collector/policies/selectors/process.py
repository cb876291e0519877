"""What a filter on the current process consists of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessFilter:
    """A condition, and lines before it that filters may share: each is in the text once."""

    condition: str
    what: str  # for the comment: the policy's words
    prepare: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    late: bool = False  # changes state where it matches: evaluated last
