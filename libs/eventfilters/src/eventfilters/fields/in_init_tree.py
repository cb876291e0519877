"""in_init_tree: whether the process descends from its container's first process."""

from __future__ import annotations

from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.HasField("in_init_tree"):
        return None
    value = wanted.in_init_tree.value

    def match(event: Event) -> bool:
        return event.process is not None and event.process.in_init_tree.value == value

    return match
