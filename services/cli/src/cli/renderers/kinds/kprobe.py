"""``process_kprobe``: a process called a kernel function."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cli.renderers.kinds import calls
from cli.renderers.kinds.base import Kind, Line
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import ProcessKprobe, StackTraceEntry

if TYPE_CHECKING:
    from cli.renderers.pen import Pen

_ABI_PREFIX = re.compile(r"^__(?:x64|arm64|ia32)_")


def lifecycle(event: GetEventsResponse) -> Line:
    """Return ``❓ kprobe``, the process and the call with its result."""
    body = event.process_kprobe
    act = calls.act_of(body)
    if act is not None:
        return Line(act.emoji, act.word, body.process, act.what, act.outcome)
    result = calls.argument(getattr(body, "return")) if body.HasField("return") else ""
    text = calls.call(body.function_name, body.args, result, body.policy_name)
    return Line("❓", "kprobe", body.process, text, calls.outcome(body.action, body.return_action))


def compact(event: GetEventsResponse, pen: Pen) -> str:
    """Return the row of the function, and its stacks."""
    from cli.renderers.kinds.kprobe_rows import ROWS

    body = event.process_kprobe
    act = calls.act_of(body)
    if act is not None:
        return calls.compact_act(event, act, pen)
    row = ROWS.get(_ABI_PREFIX.sub("", body.function_name))
    if row is None:
        line = pen.line(event, body.process, "❓", "syscall", pen.plain(body.function_name))
    else:
        emoji, word, parts = row(body, pen)
        line = pen.line(event, body.process, emoji, word, *parts)
    return line + _stacks(body, pen) if pen.options.stack_traces else line


def _stacks(body: ProcessKprobe, pen: Pen) -> str:
    text = ""
    if body.kernel_stack_trace:
        text += "Kernel:\n" + "".join(_kernel_frame(f, pen) for f in body.kernel_stack_trace)
    if body.user_stack_trace:
        text += "User:\n" + "".join(_user_frame(f, pen) for f in body.user_stack_trace)
    return text


def _kernel_frame(frame: StackTraceEntry, pen: Pen) -> str:
    address, symbol = pen.green(f"   0x{frame.address:x}:"), pen.blue(f" {pen.quote(frame.symbol)}")
    return f"{address}{symbol}+" + pen.yellow(f"0x{frame.offset:x}\n")


def _user_frame(frame: StackTraceEntry, pen: Pen) -> str:
    address = pen.green(f"   0x{frame.address:x}:")
    symbol = pen.blue(f" {pen.quote(frame.symbol)}") if frame.symbol else ""
    return address + symbol + pen.yellow(f" ({pen.quote(frame.module)}+0x{frame.offset:x})\n")


KIND = Kind(
    lifecycle,
    compact,
    calls.tree,
    calls.top,
    words=calls.words(lambda body: str(body.function_name)),
)
