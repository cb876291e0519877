"""``process_loader``: a process mapped a library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.renderers.kinds.base import Kind, Line
from tetragon.events_pb2 import GetEventsResponse

if TYPE_CHECKING:
    from cli.renderers.pen import Pen


def lifecycle(event: GetEventsResponse) -> Line:
    """Return ``🧬 loader``, the process and the library."""
    body = event.process_loader
    return Line("🧬", "loader", body.process, body.path)


def compact(event: GetEventsResponse, pen: Pen) -> str:
    """Return ``🧬 loader  SOURCE BINARY BUILDID PATH``."""
    body = event.process_loader
    build_id = f"{body.buildid.hex()} " if body.buildid else ""
    return pen.line(
        event, body.process, "🧬", "loader", build_id + pen.yellow(pen.quote(body.path))
    )


KIND = Kind(lifecycle, compact)
