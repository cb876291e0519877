"""ancestor_binary_regex: any regex is found in an ancestor's binary; the parent is none of them.

Ancestors are told by collectors that were asked to (setting enable_ancestors); without them this
matches nothing.
"""

from __future__ import annotations

from gateway.batch import Event
from gateway.filters import regex
from gateway.filters.predicate import Predicate
from tetragon import events_pb2


def build(wanted: events_pb2.Filter) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.ancestor_binary_regex:
        return None
    found = regex.any_of("ancestor_binary_regex", wanted.ancestor_binary_regex)

    def match(event: Event) -> bool:
        return any(found(ancestor.binary) for ancestor in getattr(event.inner, "ancestors", ()))

    return match
