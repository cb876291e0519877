"""A message of the stream and the events in it, parsed only where a filter needs that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from eventfilters import Event
from eventstream import encoded
from tetra.v1 import bus_pb2, node_pb2, stream_pb2
from tetragon.events_pb2 import GetEventsResponse

_MAX_UINT64 = (1 << 64) - 1
_MAX_SECONDS = 253_402_300_799  # the year 9999


def without_malformed(payloads: list[bytes], node_name: str) -> list[bytes]:
    """Return ``payloads`` with an empty one in place of each malformed GetEventsResponse.

    A malformed event would end the stream of every client that parses it. An event that names
    another node counts as malformed.
    """
    # One by one, at the same depth of nesting as a client parses them.
    return [
        b"" if _parse(node_name, encoded.splice_event(payload)) is None else payload
        for payload in payloads
    ]


def _parse(node_name: str, events: bytes) -> Sequence[GetEventsResponse] | None:
    """Return the events, parsed; None where one is malformed or of another node."""
    return _parse_as(stream_pb2.StreamEventsResponse, node_name, events)


def _parse_batch(node_name: str, batch: bytes) -> Sequence[GetEventsResponse] | None:
    """As `_parse`, of a whole EventBatch."""
    return _parse_as(encoded.parsed_batch(), node_name, batch)


def _parse_as(kind: Any, node_name: str, data: bytes) -> Sequence[GetEventsResponse] | None:
    try:
        parsed: Sequence[GetEventsResponse] = kind.FromString(data).events
    except DecodeError:
        return None
    return parsed if {event.node_name for event in parsed} <= {node_name, ""} else None


# As Timestamp.ToNanoseconds(), which takes ten times as long.
def _time_ns(time: Timestamp) -> int:
    seconds, nanos = time.seconds, time.nanos
    if not (0 <= seconds <= _MAX_SECONDS and 0 <= nanos < 1_000_000_000):
        raise DecodeError("start of collector or probes: out of range")
    return seconds * 1_000_000_000 + nanos


@dataclass(slots=True)
class Batch:
    """One message of the stream."""

    stream_sequence: int
    stored_ns: int  # when NATS stored it, calendar clock
    node_name: str
    boot_id: str
    first_sequence: int
    collector_start_ns: int
    probes_start_ns: int  # the probes have run since then, under this or an earlier collector
    loss: node_pb2.LossCounters
    payloads: list[bytes]  # serialized GetEventsResponse; empty in place of a malformed one
    size_bytes: int
    # Sequence numbers of the malformed events, which no client is sent.
    malformed: list[int] = field(default_factory=list)
    # Whether parsed and spliced events are kept for the next reader; see Broadcaster.
    warm: bool = False
    _events: list[Event] | None = field(default=None, repr=False)
    _spliced: bytes | None = field(default=None, repr=False)
    _parsed: Sequence[GetEventsResponse] | None = field(default=None, repr=False)

    @classmethod
    def decode(
        cls, data: bytes, stream_sequence: int, stored_ns: int, *, keep_parsed: bool = False
    ) -> Batch:
        """Return the batch in ``data``; raise `DecodeError` where it is malformed.

        With ``keep_parsed`` its events are parsed once and not again for filters: for batches that
        only one stream reads.
        """
        message = bus_pb2.EventBatch.FromString(data)
        last_sequence = message.first_sequence + len(message.events) - 1
        if message.node_name and not 0 <= last_sequence <= _MAX_UINT64:
            raise DecodeError("sequence numbers out of range")
        collector_start_ns = _time_ns(message.collector_start)
        probes_start_ns = _time_ns(message.probes_start)
        loss = node_pb2.LossCounters()
        loss.CopyFrom(message.loss)  # a reference would keep the whole message in memory
        payloads = list(message.events)
        # All at once is done in C, and takes a third of a microsecond for each.
        if keep_parsed:
            spliced, parsed = None, _parse_batch(message.node_name, data)
        else:
            spliced = encoded.splice_events(payloads)
            parsed = _parse(message.node_name, spliced)
        malformed: list[int] = []
        if parsed is None:
            payloads = without_malformed(payloads, message.node_name)
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
            _parsed=parsed if keep_parsed else None,
        )

    @property
    def last_sequence(self) -> int:
        """Number of the last event."""
        return self.first_sequence + len(self.payloads) - 1

    def time_ns(self, index: int) -> int:
        """Return the time of an event; see `encoded.event_time_ns`."""
        if self._parsed is not None:
            return encoded.parsed_time_ns(self._parsed[index])
        return encoded.event_time_ns(self.payloads[index])

    def events(self) -> Iterable[Event]:
        """Return the events; while the batch is warm, all readers share the parsed events."""
        if self._events is not None:
            return self._events
        if self._parsed is not None:
            return map(Event, self.payloads, self._parsed)
        if not self.warm:
            return map(Event, self.payloads)
        self._events = [Event(payload) for payload in self.payloads]
        return self._events

    def spliced(self) -> bytes:
        """Return all events as StreamEventsResponse.events; kept while the batch is warm."""
        spliced = self._spliced or encoded.splice_events(self.payloads)
        if self.warm:
            self._spliced = spliced
        return spliced

    def cool(self) -> None:
        """Drop parsed and spliced events; the next reader makes them again."""
        self.warm = False
        self._events = self._spliced = self._parsed = None
