"""container_id: any regex is found in the process's container id (31 characters)."""

from __future__ import annotations

from gateway.batch import Event
from gateway.filters import regex
from gateway.filters.predicate import Predicate
from tetragon import events_pb2


def build(wanted: events_pb2.Filter) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.container_id:
        return None
    found = regex.any_of("container_id", wanted.container_id)

    def match(event: Event) -> bool:
        return event.process is not None and found(event.process.docker)

    return match
