"""ancestor_binary_regex: any regex is found in an ancestor's binary.

The parent is no ancestor here. Collectors report ancestors where the setting enable_ancestors is
on; without it the filter matches nothing.
"""

from __future__ import annotations

from eventfilters import regex
from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.ancestor_binary_regex:
        return None
    found = regex.any_of("ancestor_binary_regex", wanted.ancestor_binary_regex, allowance)

    def match(event: Event) -> bool:
        return any(found(ancestor.binary) for ancestor in getattr(event.inner, "ancestors", ()))

    return match
