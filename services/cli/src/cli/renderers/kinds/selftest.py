"""``test``: an event that a server sends to test itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.renderers.kinds.base import Kind, Line
from tetragon.events_pb2 import GetEventsResponse

if TYPE_CHECKING:
    from cli.renderers.pen import Pen


def lifecycle(event: GetEventsResponse) -> Line:
    """Return ``❓ test event``."""
    return Line("❓", "test event")


def compact(event: GetEventsResponse, pen: Pen) -> str:
    """Return ``TEST EVENT``."""
    return "TEST EVENT\n"


KIND = Kind(lifecycle, compact)
