"""namespace: the pod's namespace is in the list; the empty name means no pod (the host)."""

from __future__ import annotations

from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.namespace:
        return None
    names = frozenset(wanted.namespace)

    def match(event: Event) -> bool:
        return event.process is not None and event.process.pod.namespace in names

    return match
