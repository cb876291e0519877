"""event_set: the event's type is in the list."""

from __future__ import annotations

from gateway.batch import Event
from gateway.filters.predicate import Predicate
from tetragon import events_pb2


def build(wanted: events_pb2.Filter) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.event_set:
        return None
    types = frozenset(wanted.event_set)

    def match(event: Event) -> bool:
        return event.type in types

    return match
