"""namespace_regex: any regex is found in the pod's namespace."""

from __future__ import annotations

from eventfilters import regex
from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.namespace_regex:
        return None
    found = regex.any_of("namespace_regex", wanted.namespace_regex, allowance)

    def match(event: Event) -> bool:
        process = event.process
        return process is not None and process.HasField("pod") and found(process.pod.namespace)

    return match
