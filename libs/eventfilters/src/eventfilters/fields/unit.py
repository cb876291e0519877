"""unit: a systemd unit of the process, the system's or the user's, is in the list.

Ours; "*" in a name stands for any text, as in ``systemctl``: ``session-*.scope``.
"""

from __future__ import annotations

from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.unit:
        return None
    names = frozenset(one for one in wanted.unit if "*" not in one)
    patterns = [one.split("*") for one in wanted.unit if "*" in one]

    def match(event: Event) -> bool:
        process = event.process
        if process is None or not process.HasField("host_unit"):
            return False
        units = (process.host_unit.unit, process.host_unit.user_unit)
        return any(
            unit and (unit in names or any(_fits(unit, parts) for parts in patterns))
            for unit in units
        )

    return match


def _fits(text: str, parts: list[str]) -> bool:
    """Return whether the parts are in ``text`` in this order, the first and last at its ends."""
    first, *middle, last = parts
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        at = text.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True
