"""The compiled form of a filter."""

from __future__ import annotations

from collections.abc import Callable

from eventfilters.event import Event
from eventfilters.limits import Allowance
from tetragon.events_pb2 import Filter

Predicate = Callable[[Event], bool]

# Returns None where the filter does not set the field; raises `FilterError` where it is malformed.
Builder = Callable[[Filter, Allowance], Predicate | None]
