"""health_check: whether process or parent is a container's own probe."""

from __future__ import annotations

from gateway.batch import Event
from gateway.filters.predicate import Predicate
from tetragon import events_pb2


def build(wanted: events_pb2.Filter) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.HasField("health_check"):
        return None
    value = wanted.health_check.value

    def match(event: Event) -> bool:
        probe = any(
            process is not None and process.pod.container.maybe_exec_probe
            for process in (event.process, event.parent)
        )
        return probe == value

    return match
