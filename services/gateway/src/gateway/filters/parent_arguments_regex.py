"""parent_arguments_regex: any regex is found in the parent's arguments."""

from __future__ import annotations

from gateway.batch import Event
from gateway.filters import regex
from gateway.filters.predicate import Predicate
from tetragon import events_pb2


def build(wanted: events_pb2.Filter) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.parent_arguments_regex:
        return None
    found = regex.any_of("parent_arguments_regex", wanted.parent_arguments_regex)

    def match(event: Event) -> bool:
        return event.parent is not None and found(event.parent.arguments)

    return match
