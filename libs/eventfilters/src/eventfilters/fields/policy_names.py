"""policy_names: the event comes from one of the policies. Tetragon leaves usdt events out."""

from __future__ import annotations

from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon import events_pb2
from tetragon.events_pb2 import Filter

_TYPES = frozenset(
    (
        events_pb2.PROCESS_KPROBE,
        events_pb2.PROCESS_TRACEPOINT,
        events_pb2.PROCESS_UPROBE,
        events_pb2.PROCESS_LSM,
    )
)


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.policy_names:
        return None
    names = frozenset(wanted.policy_names) - {""}

    def match(event: Event) -> bool:
        return event.type in _TYPES and getattr(event.inner, "policy_name", "") in names

    return match
