"""``process_tracepoint``: a process reached a tracepoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.renderers.kinds import calls
from cli.renderers.kinds.base import Kind, Line
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import ProcessTracepoint

if TYPE_CHECKING:
    from cli.renderers.pen import Pen


def lifecycle(event: GetEventsResponse) -> Line:
    """Return ``⁉️ tracepoint``, the process and the event with its arguments."""
    body = event.process_tracepoint
    act = calls.act_of(body)
    if act is not None:
        return Line(act.emoji, act.word, body.process, act.what, act.outcome)
    text = calls.call(_name(body), body.args, policy=body.policy_name)
    return Line("⁉️", "tracepoint", body.process, text, calls.outcome(body.action))


def _name(body: ProcessTracepoint) -> str:
    return f"{body.subsys}/{body.event}"


def compact(event: GetEventsResponse, pen: Pen) -> str:
    """Return ``⁉️ tracepoint SOURCE BINARY SUBSYSTEM EVENT``, or ``☎  syscall ... NAME(...)``."""
    body = event.process_tracepoint
    act = calls.act_of(body)
    if act is not None:
        return calls.compact_act(event, act, pen)
    if (body.subsys, body.event) == ("raw_syscalls", "sys_enter"):
        return pen.line(event, body.process, "☎ ", "syscall", _system_call(body))
    parts = (pen.plain(body.subsys), pen.plain(body.event))
    return pen.line(event, body.process, "⁉️", "tracepoint", *parts)


def _system_call(body: ProcessTracepoint) -> str:
    from cli.renderers import syscalls

    first = body.args[0] if body.args else None
    if first is not None and first.WhichOneof("arg") == "syscall_id":
        return syscalls.describe(first.syscall_id.id, first.syscall_id.abi, body.args[1:])
    if first is not None and first.WhichOneof("arg") == "long_arg":
        return syscalls.describe(first.long_arg, None, body.args[1:])
    return "unknown"


KIND = Kind(lifecycle, compact, calls.tree, calls.top, words=calls.words(_name))
