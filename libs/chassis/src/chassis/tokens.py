"""The file of bearer tokens, in the one form that gateway and exporter read.

A line: ``TOKEN RIGHT[,RIGHT] [NODE,...]``. ``#`` begins a comment, which names the holder.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from chassis.errors import TokenFileError

READ, CONTROL, POLICIES = "read", "control", "policies"
RIGHTS = frozenset((READ, CONTROL, POLICIES))


class TokenLine(NamedTuple):
    """What the file grants to the holder of a token."""

    token: str
    rights: frozenset[str]
    nodes: frozenset[str]  # to which the rights are limited; empty: all
    comment: str


def read_tokens(path: Path) -> list[TokenLine]:
    """Return the lines of ``path`` that have a token; raise `TokenFileError`."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenFileError(path, getattr(error, "strerror", None) or str(error)) from None
    found = []
    for number, line in enumerate(lines, 1):
        text, _, comment = line.partition("#")
        words = text.split()
        if not words:
            continue
        rights = frozenset(words[1].split(",")) if len(words) > 1 else frozenset[str]()
        if not rights or rights - RIGHTS or len(words) > 3:
            raise TokenFileError(
                path,
                f"line {number}: expected TOKEN RIGHT[,RIGHT] [NODE,...] with rights read, "
                "control, policies",
            )
        nodes = frozenset(words[2].split(",")) if len(words) > 2 else frozenset[str]()
        found.append(TokenLine(words[0], rights, nodes, comment.strip()))
    return found
