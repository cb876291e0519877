"""pod_regex: any regex is found in the pod's name."""

from __future__ import annotations

from gateway.batch import Event
from gateway.filters import regex
from gateway.filters.predicate import Predicate
from tetragon import events_pb2


def build(wanted: events_pb2.Filter) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.pod_regex:
        return None
    found = regex.any_of("pod_regex", wanted.pod_regex)

    def match(event: Event) -> bool:
        return (
            event.process is not None
            and event.process.HasField("pod")
            and found(event.process.pod.name)
        )

    return match
