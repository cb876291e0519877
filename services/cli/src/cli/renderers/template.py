"""Templates for scripts: ``--format '{{pid}} {{binary}}'``, or a list of fields.

A field is a word of ours or a path in the event: ``process.cwd``, ``parent.exec_id``,
``node_name``. A field that an event does not have is empty. Tabs and line ends
in a value are escaped, so it cannot break the line or the columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor

from cli.errors import UsageError
from cli.processes import command_of, place_of, process_of, user_of
from cli.renderers.kinds import MODULES, kind_of
from cli.terminal import visible
from eventjson.encoder import JsonEncoder
from eventjson.times import rfc3339_nanos
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process

_Field = Callable[[GetEventsResponse], str]

_EXAMPLE = "--format '{{time}} {{pid}} {{process.cwd}}'"
_HOLE = re.compile(r"\{\{\s*\.?([\w.]*)\s*\}\}")
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\\": "\\", r"\e": "\\e"}


def _of_process(text: Callable[[Process], str], member: str = "process") -> _Field:
    def field(event: GetEventsResponse) -> str:
        process = process_of(event, member)
        return text(process) if process is not None else ""

    return field


def _type(event: GetEventsResponse) -> str:
    return (event.WhichOneof("event") or "").removeprefix("process_")


def _of_kinds(texts: Mapping[str, _Field]) -> _Field:
    def field(event: GetEventsResponse) -> str:
        text = texts.get(event.WhichOneof("event") or "")
        return text(event) if text is not None else ""

    return field


def _kind_words() -> Iterator[tuple[str, _Field]]:
    """Yield the words that only some kinds of events have."""
    found: dict[str, dict[str, _Field]] = {}
    for kind in MODULES:
        for word, text in kind_of(kind).words.items():
            found.setdefault(word, {})[kind] = text
    return ((word, _of_kinds(texts)) for word, texts in found.items())


WORDS: dict[str, _Field] = {
    "type": _type,
    "time": lambda event: rfc3339_nanos(event.time),
    "node": lambda event: event.node_name,
    "pid": _of_process(lambda process: str(process.pid.value)),
    "ppid": _of_process(lambda process: str(process.pid.value), "parent"),
    "user": _of_process(user_of),
    "binary": _of_process(lambda process: process.binary),
    "arguments": _of_process(lambda process: process.arguments.removeprefix(" ")),
    "command": _of_process(command_of),
    "parent_command": _of_process(command_of, "parent"),
    "container": _of_process(place_of),
    **dict(_kind_words()),
}


class TemplateRenderer:
    """``--format``: a line for each event, made from a template."""

    def __init__(self, template: str) -> None:
        if "{{" in template:
            pieces = _HOLE.split(re.sub(r"\\[tn\\]", lambda m: _ESCAPES[m.group()], template))
            if any("{{" in text or "}}" in text for text in pieces[::2]):
                raise UsageError(f"--format: {template!r}: braces do not match", _EXAMPLE)
            self._literals, names = pieces[::2], pieces[1::2]
        else:
            names = [name.strip() for name in template.split(",")]
            self._literals = ["", *["\t"] * (len(names) - 1), ""]
        self._fields = [_field(name) for name in names]

    def render(self, events: Iterable[GetEventsResponse]) -> str:
        """Return a line for each event."""
        first, *rest = self._literals
        lines = []
        for event in events:
            parts = [first]
            for field, literal in zip(self._fields, rest, strict=True):
                parts += (visible(field(event)), literal)
            lines.append("".join(parts) + "\n")
        return "".join(lines)

    def finish(self) -> str:
        """Return nothing: each line stands alone."""
        return ""


def is_field(name: str) -> bool:
    """Return whether any kind of event has a field at this path."""
    return bool(_kinds_with(name.split("."), through_lists=True))


def did_you_mean(name: str, words: Iterable[str] = ()) -> str:
    """Return a question with the field that looks most like ``name``, if one does."""
    import difflib

    known = [*words, *(f"process.{field}" for field in Process.DESCRIPTOR.fields_by_name)]
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]}?" if close else ""


def _kinds_with(path: list[str], *, through_lists: bool = False) -> set[str]:
    return {
        kind.name
        for kind in GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields
        if _has_path(kind.message_type, path, through_lists=through_lists)
    }


def _field(name: str) -> _Field:
    if name in WORDS:
        return WORDS[name]
    path = name.split(".")
    kinds = _kinds_with(path)
    is_top_level = _has_path(GetEventsResponse.DESCRIPTOR, path)
    if not kinds and not is_top_level:
        hint = did_you_mean(name, WORDS)
        raise UsageError(f"--format: no event has a field {name!r}{hint}", _EXAMPLE)
    encoder = JsonEncoder(extensions=True)

    def field(event: GetEventsResponse) -> str:
        kind = event.WhichOneof("event")
        if kind in kinds:
            return _value(getattr(event, kind), path, encoder)
        return _value(event, path, encoder) if is_top_level else ""

    return field


def _has_path(
    descriptor: Descriptor | None, path: list[str], *, through_lists: bool = False
) -> bool:
    for name in path:
        if descriptor is None or name not in descriptor.fields_by_name:
            return False
        field = descriptor.fields_by_name[name]
        descriptor = None if field.is_repeated and not through_lists else field.message_type
    return True


def _value(message: Any, path: list[str], encoder: JsonEncoder) -> str:
    *way, last = path
    for name in way:
        if not message.HasField(name):
            return ""
        message = getattr(message, name)
    text = encoder.field(message, last)
    if text is None:
        return ""
    # A text stands without its quotes; what has members or elements stays JSON.
    value = getattr(message, last)
    return value if isinstance(value, str) else text.strip('"')
