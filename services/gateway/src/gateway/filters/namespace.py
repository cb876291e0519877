"""namespace: the pod's namespace is in the list; the empty name means no pod (the host)."""

from __future__ import annotations

from gateway.batch import Event
from gateway.filters.predicate import Predicate
from tetragon import events_pb2


def build(wanted: events_pb2.Filter) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.namespace:
        return None
    names = frozenset(wanted.namespace)

    def match(event: Event) -> bool:
        return event.process is not None and event.process.pod.namespace in names

    return match
