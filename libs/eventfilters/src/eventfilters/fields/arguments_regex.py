"""arguments_regex: any regex is found in the process's arguments, which may be empty."""

from __future__ import annotations

from eventfilters import regex
from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.arguments_regex:
        return None
    found = regex.any_of("arguments_regex", wanted.arguments_regex, allowance)

    def match(event: Event) -> bool:
        process = event.process
        return process is not None and found(process.arguments)

    return match
