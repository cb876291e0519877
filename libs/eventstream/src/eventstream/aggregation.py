"""Makes one event with a count of the equal events of a window.

Two events are equal if they differ in nothing but: the time; which run of the same program it was
(exec_id, pid, tid, start time, reference count, and the parent's exec_id, of the process, its
parent and its ancestors); the local port and the cookie of a socket, the hash of a packet. The
first one stands for all, complete. Windows follow the time at which NATS stored the events, so the
past is aggregated as it was live.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

from eventstream.errors import AggregationError
from tetragon.events_pb2 import AggregationInfo, AggregationOptions, GetEventsResponse
from tetragon.tetragon_pb2 import KprobeArgument, Process
from wire import write

T = TypeVar("T")

MAX_WINDOW_S = 3600
DEFAULT_EVENTS, MAX_EVENTS = 10_000, 100_000  # different ones held
MAX_BYTES = 8 << 20  # of the held events and of the keys that distinguish them

_INFO_TAG = write.tag(GetEventsResponse.AGGREGATION_INFO_FIELD_NUMBER)
_RUN = ("exec_id", "pid", "tid", "start_time", "parent_exec_id", "refcnt")
_OF_SOCKETS = {"sock_arg": ("sport", "cookie"), "skb_arg": ("sport", "hash")}


class Limits(NamedTuple):
    """Limits of one aggregation."""

    window_ns: int
    events: int = DEFAULT_EVENTS
    size_bytes: int = MAX_BYTES


def limits_of(options: AggregationOptions) -> Limits | None:
    """Return the limits, None where no aggregation is asked for; raise `AggregationError`."""
    window = options.window_size
    window_ns = window.seconds * 1_000_000_000 + window.nanos
    if not window_ns:
        return None
    if not 0 < window_ns <= MAX_WINDOW_S * 1_000_000_000:
        raise AggregationError(f"window_size: more than 0 and at most {MAX_WINDOW_S} s are allowed")
    return Limits(window_ns, min(options.channel_buffer_size or DEFAULT_EVENTS, MAX_EVENTS))


class Held(NamedTuple, Generic[T]):
    """An event that stands for ``number`` equal ones."""

    item: T
    number: int


class Aggregator(Generic[T]):
    """Holds the events of one window. ``T`` is what the caller holds of an event."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held: dict[bytes, list[Any]] = {}  # item, number; in the order of the first ones
        self._size_bytes = 0
        self._end_ns = 0

    def __bool__(self) -> bool:
        """Whether an event is held."""
        return bool(self._held)

    @property
    def window_s(self) -> float:
        """The length of a window."""
        return self._limits.window_ns / 1e9

    def is_over(self, stored_ns: int) -> bool:
        """Return whether the window ends before an event that NATS stored at this time."""
        return bool(self._held) and stored_ns >= self._end_ns

    @property
    def is_full(self) -> bool:
        """Whether the window has to end early, or it would hold too much."""
        limits = self._limits
        return len(self._held) >= limits.events or self._size_bytes >= limits.size_bytes

    def add(self, item: T, event: GetEventsResponse, size_bytes: int, stored_ns: int) -> None:
        """Add an event; ``event`` is changed."""
        key = key_of(event)
        found = self._held.get(key)
        if found is not None:
            found[1] += 1
            return
        if not self._held:
            self._end_ns = stored_ns + self._limits.window_ns
        self._held[key] = [item, 1]
        self._size_bytes += size_bytes + len(key)

    def take(self) -> list[Held[T]]:
        """End the window: return its events in the order of the first of each."""
        held = [Held(item, number) for item, number in self._held.values()]
        self._held = {}
        self._size_bytes = 0
        return held


def with_number(event: bytes, number: int) -> bytes:
    """Return the serialized event with its count; unchanged where it stands for itself alone."""
    if number == 1:
        return event
    return event + write.message(_INFO_TAG, AggregationInfo(count=number).SerializeToString())


def key_of(event: GetEventsResponse) -> bytes:
    """Return the key that equal events share; changes ``event``."""
    event.ClearField("time")
    kind = event.WhichOneof("event")
    body: Any = getattr(event, kind) if kind else None
    if body is not None:
        for field, value in body.ListFields():
            if field.name == "time":  # of an exit
                body.ClearField("time")
            elif field.message_type is Process.DESCRIPTOR:
                for process in value if field.is_repeated else (value,):
                    _clear(process, _RUN)
            elif field.message_type is KprobeArgument.DESCRIPTOR:
                for argument in value if field.is_repeated else (value,):
                    member = argument.WhichOneof("arg")
                    if member in _OF_SOCKETS:
                        _clear(getattr(argument, member), _OF_SOCKETS[member])
    return event.SerializeToString(deterministic=True)


def _clear(message: Any, names: tuple[str, ...]) -> None:
    for name in names:
        message.ClearField(name)
