"""session: the login session of the process is in the list. Not in Tetragon."""

from __future__ import annotations

from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.session:
        return None
    sessions = frozenset(wanted.session) - {""}

    def match(event: Event) -> bool:
        return event.process is not None and event.process.host_unit.session in sessions

    return match
