"""health_check: whether the process or its parent is a probe that the container's pod defines."""

from __future__ import annotations

from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
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
