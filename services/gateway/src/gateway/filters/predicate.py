"""What a filter is once it is built."""

from __future__ import annotations

from collections.abc import Callable

from gateway.batch import Event

Predicate = Callable[[Event], bool]
