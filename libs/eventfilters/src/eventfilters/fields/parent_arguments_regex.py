"""parent_arguments_regex: any regex is found in the parent's arguments."""

from __future__ import annotations

from eventfilters import regex
from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.parent_arguments_regex:
        return None
    found = regex.any_of("parent_arguments_regex", wanted.parent_arguments_regex, allowance)

    def match(event: Event) -> bool:
        return event.parent is not None and found(event.parent.arguments)

    return match
