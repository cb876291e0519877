"""``rate_limit_info``: the exporter dropped events."""

from __future__ import annotations

from cli.renderers.kinds.base import Kind, Line
from cli.words import counted
from tetragon.events_pb2 import GetEventsResponse


def lifecycle(event: GetEventsResponse) -> Line:
    """Return ``🛑 rate limit: N events dropped``."""
    dropped = event.rate_limit_info.number_of_dropped_process_events
    return Line("🛑", "rate limit:", detail=f"{counted(dropped, 'event')} dropped", colour="bad")


KIND = Kind(lifecycle)
