"""container_name_regex: any regex is found in the name of the pod's container."""

from __future__ import annotations

from gateway.batch import Event
from gateway.filters import regex
from gateway.filters.predicate import Predicate
from tetragon import events_pb2


def build(wanted: events_pb2.Filter) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.container_name_regex:
        return None
    found = regex.any_of("container_name_regex", wanted.container_name_regex)

    def match(event: Event) -> bool:
        return (
            event.process is not None
            and event.process.HasField("pod")
            and found(event.process.pod.container.name)
        )

    return match
