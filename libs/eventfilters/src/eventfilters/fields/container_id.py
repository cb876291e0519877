"""container_id: any regex is found in the process's container id (31 characters)."""

from __future__ import annotations

from eventfilters import regex
from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.container_id:
        return None
    found = regex.any_of("container_id", wanted.container_id, allowance)

    def match(event: Event) -> bool:
        process = event.process
        return process is not None and found(process.docker)

    return match
