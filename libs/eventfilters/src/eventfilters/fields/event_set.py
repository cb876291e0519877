"""event_set: the event's type is in the list."""

from __future__ import annotations

from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.event_set:
        return None
    types = frozenset(wanted.event_set)

    def match(event: Event) -> bool:
        return event.type in types

    return match
