"""pid: the process id is in the list."""

from __future__ import annotations

from gateway.batch import Event
from gateway.filters.predicate import Predicate
from tetragon import events_pb2


def build(wanted: events_pb2.Filter) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.pid:
        return None
    pids = frozenset(wanted.pid)

    def match(event: Event) -> bool:
        return event.process is not None and event.process.pid.value in pids

    return match
