"""in_init_tree: whether the process descends from its container's first process."""

from __future__ import annotations

from gateway.batch import Event
from gateway.filters.predicate import Predicate
from tetragon import events_pb2


def build(wanted: events_pb2.Filter) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.HasField("in_init_tree"):
        return None
    value = wanted.in_init_tree.value

    def match(event: Event) -> bool:
        return event.process is not None and event.process.in_init_tree.value == value

    return match
