"""Limits for the filters of one request: memory when they are compiled, time while they run.

A filter runs beside those of other clients, in one process. Without limits one request of 60,000
patterns, or one CEL expression of four loops in each other, would occupy it alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from eventfilters.errors import CostError
from tetragon.events_pb2 import Filter

MAX_REQUEST_BYTES = 256 << 10  # of a serialized request that carries filters
MAX_FILTERS = 256
MAX_PATTERNS = 1024  # regexes, names of units and label selectors
MAX_EXPRESSIONS = 32
MAX_EXPRESSION_BYTES = 16 << 10  # all CEL expressions together

REGEX_BYTES = 512 << 10  # compiled, with what RE2 remembers while it searches
REQUEST_REGEX_BYTES = 16 << 20  # all of a request together
EXPRESSION_BYTES = 64 << 10  # a compiled CEL expression, at most
COMPILE_S = 0.5  # CPU time

# CPU time that filters may take for each event. One regex takes 3 µs, a CEL expression 20.
EVENT_S = 0.0005
BURST_S = 0.5  # largest credit, also the credit at the start

_PATTERN_FIELDS = [
    field.name
    for field in Filter.DESCRIPTOR.fields
    if field.name.endswith("_regex") or field.name in ("container_id", "unit")
]


class Allowance:
    """The rest of the limits while the filters of one request are compiled."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        """Add the cost of the filters; raise `CostError` if it exceeds the limits."""
        _check("filters", len(filters), MAX_FILTERS)
        groups = patterns = expressions = expression_bytes = 0
        for wanted in filters:
            for name in _PATTERN_FIELDS:
                count = len(getattr(wanted, name))
                groups += count > 0
                patterns += count
            patterns += len(wanted.labels)
            expressions += len(wanted.cel_expression)
            expression_bytes += sum(map(len, wanted.cel_expression))
        _check("regexes and label selectors", patterns, MAX_PATTERNS)
        _check("CEL expressions", expressions, MAX_EXPRESSIONS)
        _check("characters of CEL expressions", expression_bytes, MAX_EXPRESSION_BYTES)
        self._field_bytes = REQUEST_REGEX_BYTES // max(groups, 1)
        self.memory_bytes = (
            min(REQUEST_REGEX_BYTES, patterns * REGEX_BYTES) + expressions * EXPRESSION_BYTES
        )
        self._until = time.thread_time() + COMPILE_S

    def regex_bytes(self, patterns: int) -> int:
        """Return the memory for one regex that has ``patterns`` patterns of one field."""
        return min(self._field_bytes, patterns * REGEX_BYTES)

    def check_time(self) -> None:
        """Raise `CostError` where compiling took too long."""
        if time.thread_time() > self._until:
            raise CostError(
                f"filters: compiling them takes more than {COMPILE_S} s: use fewer or simpler ones"
            )


def _check(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise CostError(f"filters: {count} {what}, at most {limit} are allowed in a request")


class Budget:
    """CPU time that the filters of one stream may take, by the events they looked at."""

    def __init__(self) -> None:
        self._left_s = BURST_S
        self._used_s = 0.0
        self._events = 0

    def charge(self, used_s: float, events: int) -> None:
        """Take ``used_s`` for ``events``; raise `CostError` where more is used than allowed."""
        self._used_s += used_s
        self._events += events
        self._left_s = min(BURST_S, self._left_s + events * EVENT_S - used_s)
        if self._left_s < 0:
            average_ms = self._used_s / max(self._events, 1) * 1e3
            raise CostError(
                f"filters: take {average_ms:.1f} ms of CPU time an event, at most "
                f"{EVENT_S * 1e3} ms are allowed: use fewer patterns or simpler CEL expressions"
            )
