"""file_below: an event of a policy names one of the files, or a file below it."""

from __future__ import annotations

from eventfilters.accesses import all_paths
from eventfilters.errors import FilterError
from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.file_below:
        return None
    for path in wanted.file_below:
        if not path.startswith("/"):
            raise FilterError(f"file_below: {path!r} is not an absolute path")
    exact = frozenset(path.rstrip("/") or "/" for path in wanted.file_below)
    below = tuple(path.rstrip("/") + "/" for path in exact)

    def match(event: Event) -> bool:
        body = event.inner
        if body is None or "policy_name" not in body.DESCRIPTOR.fields_by_name:
            return False
        return any(path in exact or path.startswith(below) for path in all_paths(body))

    return match
