"""Read an event from a line of JSON."""

from __future__ import annotations

from google.protobuf import json_format

from tetragon.events_pb2 import GetEventsResponse


def decode(line: bytes) -> GetEventsResponse | None:
    """Return the event in ``line``, None where it is not an event. Unknown fields are ignored."""
    try:
        event = json_format.Parse(line, GetEventsResponse(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError):
        return None
    return event if event.WhichOneof("event") else None
