"""``process_uprobe``: a process called a function of a program or library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.renderers.kinds.base import Kind, Line
from tetragon.events_pb2 import GetEventsResponse

if TYPE_CHECKING:
    from cli.renderers.pen import Pen


def lifecycle(event: GetEventsResponse) -> Line:
    """Return ``🕵️ uprobe``, the process, the file and the symbol."""
    body = event.process_uprobe
    return Line("🕵️", "uprobe", body.process, f"{body.path} {body.symbol}")


def compact(event: GetEventsResponse, pen: Pen) -> str:
    """Return ``🕵️ uprobe  SOURCE BINARY PATH SYMBOL``."""
    body = event.process_uprobe
    parts = (pen.quote(body.path), pen.quote(body.symbol))
    return pen.line(event, body.process, "🕵️", "uprobe", *parts)


KIND = Kind(lifecycle, compact)
