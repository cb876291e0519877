"""Tetragon's own JSON: byte for byte what ``tetra getevents -o json`` prints."""

from __future__ import annotations

from collections.abc import Callable

from eventjson.encoder import JsonEncoder
from exporter.selection import Selected
from tetragon.events_pb2 import GetEventsResponse


def encoder() -> Callable[[Selected], str]:
    """Return the function that makes a line of an event."""
    encode = JsonEncoder().compiled(GetEventsResponse)
    return lambda event: encode(event.message)
