"""Tetragon's own JSON: byte for byte what ``tetra getevents -o json`` prints."""

from __future__ import annotations

from eventjson.encoder import JsonEncoder
from exporter.formats import Encode
from tetragon.events_pb2 import GetEventsResponse


def encoder() -> Encode:
    """Return the function that makes a line of an event."""
    encode = JsonEncoder().compiled(GetEventsResponse)
    return lambda event: encode(event.message)
