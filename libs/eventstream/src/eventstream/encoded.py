"""What is read from an event's bytes, and how it joins them: no event is parsed here."""

from __future__ import annotations

from google.protobuf.message import Message

from tetra.v1 import stream_pb2
from wire import read, write
from wire.splice import splicer

_TIME = 1001  # tetragon.GetEventsResponse.time
_MAX_TIME_NS = 253_402_300_799_999_999_999  # the largest google.protobuf.Timestamp
_EVENT_TAG = write.tag(stream_pb2.StreamEventsResponse.EVENTS_FIELD_NUMBER)

# Serialized events to StreamEventsResponse.events.
splice_events = splicer(stream_pb2.StreamEventsResponse.EVENTS_FIELD_NUMBER)


def serialize(message: Message) -> bytes:
    """Return the message's bytes: a response serializer for gRPC."""
    return message.SerializeToString()


def event_type(event: bytes) -> int:
    """Return the EventType of a serialized GetEventsResponse: its first field's number."""
    return read.first_field(event)


def event_time_ns(event: bytes) -> int:
    """Return the event's ``time`` in nanoseconds since 1970.

    0 where it has none, or one before 1970 or after the year 9999.
    """
    found = read.values(event, _TIME)
    if not found:
        return 0
    time_ns = read.timestamp_ns(found[-1])
    return time_ns if time_ns <= _MAX_TIME_NS else 0


def splice_event(event: bytes) -> bytes:
    """Return ``event`` as an element of StreamEventsResponse.events."""
    return write.message(_EVENT_TAG, event)
