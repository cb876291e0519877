"""The filters of one request, compiled: which events pass, and which of their fields are sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eventfilters import field_filters
from eventfilters.event import Event
from eventfilters.fields import BUILDERS
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import FieldFilter, Filter, GetEventsResponse


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters and field filters of one client."""

    match: Predicate | None  # None: every event passes
    rewrite: field_filters.Rewrite | None  # None: events are sent complete
    memory_bytes: int = 0  # at most, of what was compiled
    # Whether a filter learns from the events it sees, so that it must see them once and in order.
    ordered: bool = False

    @property
    def pass_all(self) -> bool:
        """Whether every event is sent, complete."""
        return self.match is None and self.rewrite is None

    def apply(self, event: Event) -> bytes | None:
        """Return the bytes to send of ``event``, None where it does not pass."""
        if self.match is not None and not self.match(event):
            return None
        changed = None if self.rewrite is None else self.rewrite(event)
        return event.data if changed is None else changed.SerializeToString()

    def apply_parsed(self, event: Event) -> GetEventsResponse | None:
        """As `apply`, with a message as the result."""
        if self.match is not None and not self.match(event):
            return None
        changed = None if self.rewrite is None else self.rewrite(event)
        return event.message if changed is None else changed


def compile(
    allow: Sequence[Filter],
    deny: Sequence[Filter] = (),
    fields: Sequence[FieldFilter] = (),
) -> Filters:
    """Return the filters; raise `FilterError` naming what is malformed, `CostError` what is large.

    Takes up to `limits.COMPILE_S` of CPU time.
    """
    both = [*allow, *deny]
    allowance = Allowance(both)
    allowed = [_build(wanted, allowance) for wanted in allow]
    denied = [_build(wanted, allowance) for wanted in deny]

    def match(event: Event) -> bool:
        return (not allowed or any(passes(event) for passes in allowed)) and not any(
            drops(event) for drops in denied
        )

    single = allowed[0] if len(allowed) == 1 and not denied else match
    return Filters(
        match=single if allowed or denied else None,
        rewrite=field_filters.build(fields),
        memory_bytes=allowance.memory_bytes,
        ordered=any(wanted.pid_set for wanted in both),
    )


def _build(wanted: Filter, allowance: Allowance) -> Predicate:
    built = [build(wanted, allowance) for build in BUILDERS]
    predicates = [predicate for predicate in built if predicate is not None]
    if len(predicates) == 1:
        return predicates[0]
    return lambda event: all(predicate(event) for predicate in predicates)
