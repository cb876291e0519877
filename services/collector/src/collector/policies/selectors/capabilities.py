"""CapabilitiesGained on two capability sets; matchCapabilities on those of the current task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tracingpolicy.selectors import ValueFilter

if TYPE_CHECKING:
    from collector.policies.arguments.base import Arg


def gained(one: ValueFilter, section: Sequence[Arg]) -> str:
    """Return a condition that is true where the second set has a bit that the first lacks."""
    old, new = (section[position].name for position in one.operands)
    return f"({old}_ok && {new}_ok && ({new}_set & ~{old}_set) != 0)"
