"""Aggregation for a sink: equal events of a window become one with a count."""

from __future__ import annotations

import time

from eventstream.aggregation import Aggregator, Limits
from exporter.config import Aggregation
from exporter.selection import Selected
from tetragon.events_pb2 import GetEventsResponse


class Windows:
    """Holds the events of one window; it ends between two messages of the stream.

    The sink's position is before the events that are held: after a restart they are read again.
    """

    def __init__(self, settings: Aggregation) -> None:
        window_ns = round(settings.window_size * 1e9)
        self._held: Aggregator[Selected] = Aggregator(
            Limits(window_ns, settings.channel_buffer_size)
        )
        self._until = 0.0  # monotonic

    def __bool__(self) -> bool:
        """Whether an event is held."""
        return bool(self._held)

    def ends_before(self, stored_ns: int) -> bool:
        """Return whether it ends before a message that NATS stored at this time."""
        return self._held.is_over(stored_ns) or self._held.is_full

    @property
    def left_s(self) -> float:
        """The seconds until it ends where no events come."""
        return max(0.0, self._until - time.monotonic())

    def add(self, event: Selected, stored_ns: int) -> None:
        """Add an event."""
        if not self._held:
            self._until = time.monotonic() + self._held.window_s
        copy = GetEventsResponse()
        copy.CopyFrom(event.message)
        self._held.add(event, copy, copy.ByteSize(), stored_ns)

    def take(self) -> list[Selected]:
        """End it; return its events with their counts, in the order of the first ones."""
        found = []
        for event, number in self._held.take():
            message = event.message
            if number > 1:
                message = GetEventsResponse()
                message.CopyFrom(event.message)
                message.aggregation_info.count = number
            found.append(event._replace(message=message))
        return found
