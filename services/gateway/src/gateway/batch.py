"""A message of the stream, and the events in it, parsed at most once and only when asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from google.protobuf.message import DecodeError, Message

from gateway import wire
from tetra.v1 import bus_pb2, node_pb2, stream_pb2
from tetragon import events_pb2, tetragon_pb2

_MAX_UINT64 = (1 << 64) - 1


class Event:
    """A serialized GetEventsResponse with what filters look at."""

    __slots__ = ("__dict__", "data", "type")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.type = wire.event_type(data)

    @cached_property
    def message(self) -> events_pb2.GetEventsResponse:
        """The parsed event; empty where the bytes are malformed."""
        try:
            return events_pb2.GetEventsResponse.FromString(self.data)
        except DecodeError:
            return events_pb2.GetEventsResponse()

    @cached_property
    def inner(self) -> Message | None:
        """The member of the ``event`` oneof."""
        name = self.message.WhichOneof("event")
        return None if name is None else getattr(self.message, name)

    @cached_property
    def process(self) -> tetragon_pb2.Process | None:
        """The event's process."""
        return _member(self.inner, "process")

    @cached_property
    def parent(self) -> tetragon_pb2.Process | None:
        """The event's parent process."""
        return _member(self.inner, "parent")


def _member(inner: Message | None, name: str) -> tetragon_pb2.Process | None:
    if inner is None or name not in inner.DESCRIPTOR.fields_by_name or not inner.HasField(name):
        return None
    process = getattr(inner, name)
    assert isinstance(process, tetragon_pb2.Process)
    return process


def without_malformed(payloads: list[bytes], node_name: str, spliced: bytes = b"") -> list[bytes]:
    """Return ``payloads`` with an empty one in place of each that is no GetEventsResponse.

    One of these among good ones would end the stream of every client that reads it. An event that
    names another node is no better. ``spliced``: what `wire.splice_events` makes of them, where
    that is there already.
    """
    # All at once is done in C, and costs a third of a microsecond for each.
    if _are_from(node_name, spliced or wire.splice_events(payloads)):
        return payloads
    # As deep as they are there.
    return [one if _are_from(node_name, wire.splice_event(one)) else b"" for one in payloads]


def _are_from(node_name: str, events: bytes) -> bool:
    try:
        told = stream_pb2.StreamEventsResponse.FromString(events)
    except DecodeError:
        return False
    return {event.node_name for event in told.events} <= {node_name, ""}


@dataclass(slots=True)
class Batch:
    """One message of the stream."""

    stream_sequence: int
    stored_ns: int  # when NATS took it, calendar clock
    node_name: str
    boot_id: str
    first_sequence: int
    collector_start_ns: int
    probes_start_ns: int  # nothing was unseen since, whichever collector ran
    loss: node_pb2.LossCounters
    payloads: list[bytes]  # serialized GetEventsResponse; empty in place of what is none
    size_bytes: int
    # Numbers of the events that could not be read; nobody is sent those.
    malformed: list[int] = field(default_factory=list)
    # Whether what is made from the events is kept for the next who asks; see Broadcaster.
    warm: bool = False
    _events: list[Event] | None = field(default=None, repr=False)
    _spliced: bytes | None = field(default=None, repr=False)

    @classmethod
    def decode(cls, data: bytes, stream_sequence: int, stored_ns: int) -> Batch:
        """Return the batch in ``data``; raise `DecodeError` if it is none."""
        message = bus_pb2.EventBatch.FromString(data)
        last_sequence = message.first_sequence + len(message.events) - 1
        if message.node_name and not 0 <= last_sequence <= _MAX_UINT64:
            raise DecodeError("sequence numbers that are none")
        try:
            collector_start_ns = message.collector_start.ToNanoseconds()
            probes_start_ns = message.probes_start.ToNanoseconds()
        except ValueError as error:
            raise DecodeError(f"start of collector or probes: {error}") from None
        loss = node_pb2.LossCounters()
        loss.CopyFrom(message.loss)  # a part of the message would keep all of it in memory
        events = list(message.events)
        spliced = wire.splice_events(events)
        payloads = without_malformed(events, message.node_name, spliced)
        malformed: list[int] = []
        if not all(payloads):
            malformed = [message.first_sequence + n for n, one in enumerate(payloads) if not one]
        return cls(
            stream_sequence=stream_sequence,
            stored_ns=stored_ns,
            node_name=message.node_name,
            boot_id=message.boot_id,
            first_sequence=message.first_sequence,
            collector_start_ns=collector_start_ns,
            probes_start_ns=probes_start_ns or collector_start_ns,
            loss=loss,
            payloads=payloads,
            size_bytes=len(data),
            malformed=malformed,
            _spliced=None if malformed else spliced,
        )

    @property
    def last_sequence(self) -> int:
        """Number of the last event."""
        return self.first_sequence + len(self.payloads) - 1

    def events(self) -> Iterable[Event]:
        """Return the events with their parsed forms, shared by all who ask while it is warm."""
        if self._events is not None:
            return self._events
        if not self.warm:
            return map(Event, self.payloads)
        self._events = [Event(payload) for payload in self.payloads]
        return self._events

    def spliced(self) -> bytes:
        """Return all events as StreamEventsResponse.events; made again only once it has cooled."""
        spliced = self._spliced or wire.splice_events(self.payloads)
        if self.warm:
            self._spliced = spliced
        return spliced

    def cool(self) -> None:
        """Drop what was made from the events; it is made again when asked."""
        self.warm = False
        self._events = self._spliced = None
