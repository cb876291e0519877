"""CapabilitiesGained on two capability sets; matchCapabilities on those of the current task."""

from __future__ import annotations

from tracingpolicy.selectors import ValueFilter


def gained(one: ValueFilter) -> str:
    """Return a condition that is true where the second set has a bit that the first lacks."""
    old, new = (f"arg{position}" for position in one.operands)
    return f"({old}_ok && {new}_ok && ({new}_set & ~{old}_set) != 0)"
