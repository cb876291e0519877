"""What is read from an event's bytes, and how it joins them: no event is parsed here."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from tetra.v1 import bus_pb2, stream_pb2
from tetragon.events_pb2 import GetEventsResponse
from wire import read, write
from wire.splice import splicer

_TIME = 1001  # tetragon.GetEventsResponse.time
_MAX_TIME_NS = 253_402_300_799_999_999_999  # the largest google.protobuf.Timestamp
_UINT64 = (1 << 64) - 1
_EVENT_TAG = write.tag(stream_pb2.StreamEventsResponse.EVENTS_FIELD_NUMBER)

# Serialized events to StreamEventsResponse.events.
splice_events = splicer(stream_pb2.StreamEventsResponse.EVENTS_FIELD_NUMBER)


@cache
def parsed_batch() -> type[Any]:
    """Return EventBatch as a type that parses the events too, and none of its other fields."""
    file = descriptor_pb2.FileDescriptorProto(
        name="eventstream/parsed", package="eventstream", syntax="proto3"
    )
    file.dependency.append(GetEventsResponse.DESCRIPTOR.file.name)
    file.message_type.add(name="ParsedBatch").field.add(
        name="events",
        number=bus_pb2.EventBatch.EVENTS_FIELD_NUMBER,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
        type_name=f".{GetEventsResponse.DESCRIPTOR.full_name}",
        label=descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
    )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("eventstream.ParsedBatch"))


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
    return _in_range(read.timestamp_ns(found[-1]))


def parsed_time_ns(event: GetEventsResponse) -> int:
    """As `event_time_ns`, of an event that is parsed already: a quarter of the time."""
    time = event.time
    # A number below zero is a large one in the bytes.
    return _in_range((time.seconds & _UINT64) * 1_000_000_000 + (time.nanos & _UINT64))


def _in_range(time_ns: int) -> int:
    return time_ns if time_ns <= _MAX_TIME_NS else 0


def splice_event(event: bytes) -> bytes:
    """Return ``event`` as an element of StreamEventsResponse.events."""
    return write.message(_EVENT_TAG, event)
