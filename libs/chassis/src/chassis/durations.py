"""Durations as people write them: ``90s``, ``24h``, ``1h30m``. Needs the standard library only."""

from __future__ import annotations

import re

_UNITS_S = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
_NUMBER = r"\d+(?:\.\d+)?"
_PART = re.compile(rf"({_NUMBER})(ns|us|µs|ms|s|m|h|d|w)")
_PLAIN = re.compile(_NUMBER)


def parse_seconds(text: str, *, plain: bool = False) -> float:
    """Return the seconds of a duration; raise `ValueError` that names the form.

    ``plain``: a number without a unit is a number of seconds. Zero never needs a unit.
    """
    value = text.strip()
    parts = _PART.findall(value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if value == "0" or (plain and _PLAIN.fullmatch(value)):
        return float(value)
    raise ValueError(f"{text!r} is not a duration: write it as 90s, 24h or 1h30m")


def has_unit(text: str) -> bool:
    """Return whether ``text`` begins with a number and its unit."""
    return _PART.match(text) is not None
