"""Renderers: events in, text out. One module per output; `kinds` has one per kind of event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tetragon.events_pb2 import GetEventsResponse


class Renderer(Protocol):
    """Turns events into text for standard output."""

    def render(self, events: Iterable[GetEventsResponse]) -> str | bytes:
        """Return the text for a batch."""

    def finish(self) -> str:
        """Return what follows the last event."""
