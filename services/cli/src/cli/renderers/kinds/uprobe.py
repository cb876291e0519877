"""``process_uprobe``: a process called a function of a program or library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.renderers.kinds import calls
from cli.renderers.kinds.base import Kind, Line
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import ProcessUprobe

if TYPE_CHECKING:
    from cli.renderers.pen import Pen


def lifecycle(event: GetEventsResponse) -> Line:
    """Return ``🕵️ uprobe``, the process, the file and the call."""
    body = event.process_uprobe
    text = calls.call(f"{body.path}:{_name(body)}", body.args, policy=body.policy_name)
    return Line("🕵️", "uprobe", body.process, text, calls.outcome(body.action))


def _name(body: ProcessUprobe) -> str:
    return body.symbol or f"{body.offset:#x}"


def compact(event: GetEventsResponse, pen: Pen) -> str:
    """Return ``🕵️ uprobe  SOURCE BINARY PATH SYMBOL``."""
    body = event.process_uprobe
    parts = (pen.quote(body.path), pen.quote(body.symbol))
    return pen.line(event, body.process, "🕵️", "uprobe", *parts)


KIND = Kind(lifecycle, compact, words=calls.words(_name))
