"""Bits of a mask that policies share."""

from __future__ import annotations

from collections.abc import Collection

from collector.errors import ProbeError


def free_bit(used: Collection[int], most: int, what: str) -> int:
    """Return the lowest bit that is not ``used``; raise `ProbeError` where ``most`` are."""
    for bit in range(most):
        if bit not in used:
            return bit
    raise ProbeError(f"policies: {most} different {what} are in use; remove a policy")
