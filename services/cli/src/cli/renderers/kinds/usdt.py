"""``process_usdt``: a process passed a static probe of a program or library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.renderers.kinds import calls
from cli.renderers.kinds.base import Kind, Line
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import ProcessUsdt

if TYPE_CHECKING:
    from cli.renderers.pen import Pen


def lifecycle(event: GetEventsResponse) -> Line:
    """Return ``🕵️ usdt``, the process, the file and the probe with its arguments."""
    body = event.process_usdt
    text = calls.call(f"{body.path}:{_name(body)}", body.args, policy=body.policy_name)
    return Line("🕵️", "usdt", body.process, text, calls.outcome(body.action))


def _name(body: ProcessUsdt) -> str:
    return f"{body.provider}:{body.name}"


def compact(event: GetEventsResponse, pen: Pen) -> str:
    """Return ``🕵️ usdt    SOURCE BINARY PATH PROVIDER NAME``."""
    body = event.process_usdt
    parts = (pen.quote(body.path), pen.quote(body.provider), pen.quote(body.name))
    return pen.line(event, body.process, "🕵️", "usdt", *parts)


KIND = Kind(lifecycle, compact, words=calls.words(_name))
