"""Renderers: events in, text out. One module for each output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tetragon.events_pb2 import GetEventsResponse


class Renderer(Protocol):
    """Turns events into what standard output gets."""

    def render(self, events: Iterable[GetEventsResponse]) -> str | bytes:
        """Return the text for a batch; raise `RenderError` for an event without a form."""

    def finish(self) -> str:
        """Return what comes after the last event."""
