"""Events as they come from a gateway, each part one, through everything that prints them.

Without colours every line is printable; with colours it has no other escapes than theirs. JSON
reads back. Full screens have lines that fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

from google.protobuf.message import DecodeError

from cli.commands.top import TopView
from cli.commands.tree import TreeView
from cli.renderers import Renderer
from cli.renderers.compact import CompactRenderer
from cli.renderers.json import JsonRenderer
from cli.renderers.kinds.kprobe_rows import ROWS
from cli.renderers.lifecycle import LifecycleRenderer
from cli.renderers.pen import CompactOptions
from cli.renderers.template import WORDS, TemplateRenderer
from cli.renderers.tree import TreeRenderer
from cli.resume import Batch
from eventjson.decoder import decode
from fuzz.inputs import flipped, join
from fuzz.messages import TEXTS, changed
from tetragon.events_pb2 import GetEventsResponse

# Options.
SCREENS = 1
ASCII = 2
FROM_STDIN = 4  # each part is a line of stdin, too, and so is the JSON of each event

_NOW_S = 1_767_225_600.0
_SGR = re.compile(r"\x1b\[\d*m")
_PAINTED: list[Callable[[bool], Renderer]] = [
    lambda colour: LifecycleRenderer(colour=colour, timestamps=True, show_node=True),
    lambda colour: CompactRenderer(CompactOptions(colour=colour, timestamps=True, guard=True)),
    lambda colour: CompactRenderer(CompactOptions(colour=colour, guard=True, quote=False)),
    lambda colour: TreeRenderer(colour=colour),
    lambda colour: TreeRenderer(colour=colour, width=30, unicode=False),
]
_TEMPLATES = (",".join(WORDS), "{{process}} {{parent.pid}} {{process.pod}} {{process.start_time}}")


def check(options: int, parts: list[bytes]) -> None:
    """Print the events in all forms."""
    events = []
    for part in parts:
        try:
            events.append(GetEventsResponse.FromString(part))
        except DecodeError:
            continue  # gRPC says so, and the stream ends
    if options & FROM_STDIN:
        events += _from_stdin(parts, events)
    for make in _PAINTED:
        bare, painted = _render(make(False), events), _render(make(True), events)
        assert bare.replace("\n", "").isprintable(), repr(bare)
        assert _squeezed(_SGR.sub("", painted)) == _squeezed(bare), repr(painted)
    for template in _TEMPLATES:
        for line in _lines(TemplateRenderer(template), events):
            assert line.replace("\t", "").isprintable(), repr(line)
    for line in _lines(JsonRenderer(extensions=True, ascii=bool(options & ASCII)), events):
        assert line.isprintable(), repr(line)
        assert isinstance(json.loads(line), dict)
    if options & SCREENS:
        _screens(events)


# What is printed can be read again; numbers of a time that no calendar has cannot.
def _from_stdin(parts: list[bytes], events: list[GetEventsResponse]) -> list[GetEventsResponse]:
    lines = [part.replace(b"\n", b" ") for part in parts]
    lines += [line.encode() for line in _lines(JsonRenderer(), events)]
    return [event for line in lines if (event := decode(line)) is not None]


def _render(renderer: Renderer, events: list[GetEventsResponse]) -> str:
    made = renderer.render(events)
    assert isinstance(made, str)
    return made + renderer.finish()


def _lines(renderer: Renderer, events: list[GetEventsResponse]) -> list[str]:
    text = _render(renderer, events)
    assert text.count("\n") == len(events)
    return text.split("\n")[:-1]


# Tetragon pads lines by their length, colours included.
def _squeezed(text: str) -> str:
    return text.replace(" ", "")


def _screens(events: list[GetEventsResponse]) -> None:
    views: list[Any] = [TopView("binary", "a"), TreeView(10, "a")]
    for view in views:
        for event in events:
            view.take(Batch([event]))
        for key in ("b", "u", "c", "n", "t", "end"):
            view.press(key)
            lines = view.picture(80, 24, _NOW_S, "said\x1b").split("\n", allow_blank=True)
            assert len(lines) == 24
            for line in lines:
                assert line.plain.isprintable(), repr(line.plain)
                assert line.cell_len <= 80, repr(line.plain)


def mutate(part: bytes, rng: Random) -> bytes:
    """Another event by the schema, hostile texts where texts stand, or other bytes."""
    if rng.random() < 0.1:
        return flipped(part, rng)
    if part.startswith(b"{"):
        return _json(part, rng)
    if rng.random() < 0.1:
        return _kernel_function(rng)
    if rng.random() < 0.3:
        event = GetEventsResponse()
        try:
            event.MergeFromString(part)
        except DecodeError:
            event.Clear()
        kind = event.WhichOneof("event") or rng.choice(("process_exec", "process_exit"))
        body = getattr(event, kind)
        if "process" in body.DESCRIPTOR.fields_by_name:
            process = rng.choice((body.process, body.parent))
            process.exec_id, process.parent_exec_id = rng.choice("abc"), rng.choice("abc")
            process.binary, process.arguments = rng.choice(TEXTS), rng.choice(TEXTS)
            process.pid.value = rng.randrange(4)
        return event.SerializeToString()
    return changed(part, GetEventsResponse, rng, {})


def _json(part: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(part) + 1)
    odd = (
        b'"',
        b"{",
        b"[" * 2000,
        b"1e400",
        b"-1",
        b"null",
        b'"\\ud800"',
        b"\xff",
        b'"@9Z"',
        b"9" * 30,
    )
    return part[:at] + rng.choice(odd) + part[at + rng.randrange(9) :]


def _kernel_function(rng: Random) -> bytes:
    event = GetEventsResponse.FromString(_event("process_kprobe"))
    body = event.process_kprobe
    body.function_name = rng.choice(("", "__x64_")) + rng.choice(tuple(ROWS))
    for _ in range(rng.randrange(4)):
        argument = body.args.add()
        field = rng.choice(argument.DESCRIPTOR.oneofs_by_name["arg"].fields)
        if field.message_type is None:
            if field.name == "string_arg":
                argument.string_arg = rng.choice(TEXTS)
            elif field.name.endswith("int_arg"):
                setattr(argument, field.name, rng.choice((0, 1, 2, 4, 0x02000000)))
            continue
        value = getattr(argument, field.name)
        value.SetInParent()
        for member in field.message_type.fields:
            if member.type == member.TYPE_STRING and not member.is_repeated:
                setattr(value, member.name, rng.choice(TEXTS))
    if rng.random() < 0.3:
        body.user_stack_trace.add(address=1, offset=2, symbol=rng.choice(TEXTS), module="m")
    return event.SerializeToString()


def _event(kind: str, **process: Any) -> bytes:
    event = GetEventsResponse(node_name="node-1")
    event.time.seconds = int(_NOW_S) - 5
    body = getattr(event, kind)
    body.SetInParent()
    if "process" in body.DESCRIPTOR.fields_by_name:
        body.process.start_time.CopyFrom(event.time)
        body.process.pid.value, body.process.uid.value = 5, 0
        body.process.exec_id, body.process.parent_exec_id = "a", "b"
        for name, value in process.items():
            setattr(body.process, name, value)
        body.parent.pid.value, body.parent.exec_id = 4, "b"
    return event.SerializeToString()


def seeds() -> list[bytes]:
    """A life, one event of each kind, and some kernel functions that have a row of their own."""
    life = [
        _event("process_exec", binary="/bin/x", arguments="a b", user_name="root"),
        _event("process_exit", binary="/bin/x", docker="0123456789ab"),
    ]
    kinds = [field.name for field in GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields]
    functions = []
    for name in ("__x64_sys_write", "tcp_connect", "security_file_permission", "fd_install"):
        event = GetEventsResponse.FromString(_event("process_kprobe"))
        event.process_kprobe.function_name = name
        event.process_kprobe.args.add(file_arg={"path": "/etc/x"})
        event.process_kprobe.args.add(int_arg=2)
        event.process_kprobe.kernel_stack_trace.add(address=1, symbol="s")
        functions.append(event.SerializeToString())
    return [
        join(SCREENS, life),
        join(ASCII, life),
        join(
            FROM_STDIN,
            [*life, b'{"process_exec":{"process":{"pid":5}},"time":"2026-01-01T0:0:0Z"}'],
        ),
        join(0, functions),
        *(join(SCREENS, [_event(kind)]) for kind in kinds),
    ]
