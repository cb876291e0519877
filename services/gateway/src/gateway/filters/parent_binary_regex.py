"""parent_binary_regex: any regex is found in the parent's binary."""

from __future__ import annotations

from gateway.batch import Event
from gateway.filters import regex
from gateway.filters.predicate import Predicate
from tetragon import events_pb2


def build(wanted: events_pb2.Filter) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.parent_binary_regex:
        return None
    found = regex.any_of("parent_binary_regex", wanted.parent_binary_regex)

    def match(event: Event) -> bool:
        return event.parent is not None and found(event.parent.binary)

    return match
