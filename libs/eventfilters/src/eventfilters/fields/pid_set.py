"""pid_set: the process, or one it descends from, is in the list.

Descendants are learned from the events that reach the filter, in the order of the stream: a
process whose parent is in the set joins it.
"""

from __future__ import annotations

from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter

MAX_DESCENDANTS = 1 << 16  # of one filter; beyond that the oldest are forgotten


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.pid_set:
        return None
    pids = frozenset(wanted.pid_set)
    descendants: dict[int, None] = {}

    def match(event: Event) -> bool:
        if event.process is None:
            return False
        pid = event.process.pid.value
        if pid in pids or pid in descendants:
            return True
        if event.parent is None:
            return False
        parent = event.parent.pid.value
        if parent not in pids and parent not in descendants:
            return False
        descendants[pid] = None
        if len(descendants) > MAX_DESCENDANTS:
            del descendants[next(iter(descendants))]
        return True

    return match
