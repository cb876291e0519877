"""Why no events arrive, in one line: the same for gRPC health, /readyz and GetHealth."""

from __future__ import annotations

from bus.subjects import EVENTS_STREAM
from gateway.fleet import Fleet
from gateway.streams import Streams

_ADVICE = (
    "make room if its disk is full, and restart nats-server; if that does not help, delete the "
    "stream: a gateway makes it again"
)


def find_fault(streams: Streams, fleet: Fleet) -> str:
    """Return what is wrong; empty if events arrive, or would arrive if there were any."""
    if not streams.live:
        return "nats unreachable or stream missing"
    if streams.stream_is_dead:
        return f"stream {EVENTS_STREAM} took over the state of a deleted one: {_ADVICE}"
    if fleet.stream_is_stuck:
        return f"stream {EVENTS_STREAM} stores no events, though collectors have some: {_ADVICE}"
    return ""
