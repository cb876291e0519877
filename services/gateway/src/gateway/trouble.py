"""Why no events come in, in one line: for gRPC health, /readyz and GetHealth alike."""

from __future__ import annotations

from bus.subjects import EVENTS_STREAM
from gateway.fleet import Fleet
from gateway.streams import Streams

_MEND = "restart nats-server; if that does not help, delete the stream, and it is made anew"


def find(streams: Streams, fleet: Fleet) -> str:
    """Return what is wrong; empty where events come in, or where there are none."""
    if not streams.live:
        return "nats unreachable or stream not there"
    if streams.stream_is_dead:
        return f"stream {EVENTS_STREAM} took over the state of a deleted one: {_MEND}"
    if fleet.stream_is_stuck:
        return f"stream {EVENTS_STREAM} takes no events, though collectors have some: {_MEND}"
    return ""
