"""``process_exec``: a process started, or one that ran already was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.processes import parent_of
from cli.renderers.kinds.base import Kind, LineMembers, TopView, TreeView
from tetragon.events_pb2 import GetEventsResponse

if TYPE_CHECKING:
    from cli.renderers.pen import Pen


def lifecycle(event: GetEventsResponse) -> LineMembers:
    """Return ``🚀 process PID: USER: BINARY ARGUMENTS``."""
    return "🚀", "process", event.process_exec.process, "", "", "start"


def compact(event: GetEventsResponse, pen: Pen) -> str:
    """Return ``🚀 process SOURCE BINARY ARGUMENTS``."""
    process = event.process_exec.process
    return pen.line(event, process, "🚀", "process", pen.cyan(pen.quote(process.arguments)))


def tree(tree: TreeView, event: GetEventsResponse) -> None:
    """Add the process; end the image that it replaces."""
    tree.start(event, event.process_exec.process, parent_of(event))


def top(model: TopView, event: GetEventsResponse) -> None:
    """Count a start."""
    model.start(event, event.process_exec.process, event.process_exec.parent)


KIND = Kind(lifecycle, compact, tree, top)
