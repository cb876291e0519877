"""``process_exit``: a process ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.processes import end_of, parent_of
from cli.renderers.kinds.base import Kind, LineMembers, TopView, TreeView
from tetragon.events_pb2 import GetEventsResponse

if TYPE_CHECKING:
    from cli.renderers.pen import Pen


def lifecycle(event: GetEventsResponse) -> LineMembers:
    """Return ``💥 exit PID: USER: BINARY ARGUMENTS``, and a status that is not 0 or the signal."""
    ended = event.process_exit
    return "💥", "exit", ended.process, "", end_of(ended), "end"


def compact(event: GetEventsResponse, pen: Pen) -> str:
    """Return ``💥 exit    SOURCE BINARY ARGUMENTS STATUS``."""
    ended = event.process_exit
    arguments = pen.cyan(pen.quote(ended.process.arguments))
    status = pen.red(pen.plain(ended.signal) or str(ended.status))
    return pen.line(event, ended.process, "💥", "exit", arguments, status)


def tree(tree: TreeView, event: GetEventsResponse) -> None:
    """End the process."""
    ended = event.process_exit
    how = end_of(ended)
    how = f"exit {how}" if how.isdecimal() else how
    tree.end(event, ended.process, parent_of(event), how)


def top(model: TopView, event: GetEventsResponse) -> None:
    """Count an end."""
    model.end(event, event.process_exit.process)


def _end(event: GetEventsResponse) -> str:
    return end_of(event.process_exit) or "0"


KIND = Kind(lifecycle, compact, tree, top, words={"end": _end})
