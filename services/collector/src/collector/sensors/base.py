"""A sensor: record kinds with their decoders and handlers, and the losses that they can have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Moment(NamedTuple):
    """When a record was read from the ring."""

    offset_ns: int  # what to add to the boot clock for the calendar's
    now_s: float  # monotonic clock


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class RecordKind:
    """One kind of record in the ring, from its bytes to at most one event.

    ``decode`` raises `DecodeError`; None means that the record is part of a later one. ``handle``
    returns a serialized GetEventsResponse, or None where the record is no event. While ``ready``
    returns False, the record and all behind it wait, for a bounded time: its metadata has not
    arrived yet. None: it is always ready.
    """

    number: int  # enum record_kind
    name: str
    decode: Callable[[bytes], Any]
    handle: Callable[[Any, Moment], bytes | None]
    ready: Callable[[Any], bool] | None = None
    event: str = ""  # name of the event in metrics, as PROCESS_EXEC
    operation: str = ""  # Tetragon's operation code, label msg_op of its metrics


@dataclass(frozen=True, slots=True)
class Sensor:
    """One thing that the collector observes."""

    name: str
    kinds: tuple[RecordKind, ...]
    # Causes of loss, each with the slots of the kernel's map `lost` that count it.
    losses: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    # Whether records arrived whose remaining parts have not: no saved table could hold them.
    unfinished: Callable[[], bool] = _never
