"""YAML to nodes with positions: strict, one document, bounded in depth and in size.

Plain scalars mean what they mean to Tetragon's reader: YAML 1.1 with ``yes``, ``on`` and ``y``
as truth values, but no base-60 numbers and no dates. JSON is accepted because it is YAML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import yaml

from tracingpolicy.position import Position
from tracingpolicy.reading.report import Report

MAX_DEPTH = 48  # a policy needs 12
MAX_NODES = 200_000  # after aliases are expanded
MAX_BYTES = 4 << 20
_TAGS = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o[0-7_]+|[0-9][0-9_]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_INF = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_DIGITS = re.compile(r"[0-9][0-9a-zA-Z_]*\Z")  # int() allows spaces and a second sign
_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_NULLS = {"", "~", "null", "Null", "NULL"}
_WORDS = {"y": True, "yes": True, "on": True, "true": True}
_WORDS |= {"n": False, "no": False, "off": False, "false": False}
_BOOLS = {
    spelled: value
    for word, value in _WORDS.items()
    for spelled in (word, word.capitalize(), word.upper())
}


class Kind(Enum):
    """What a node is, as messages name it."""

    MAPPING = "a mapping"
    LIST = "a list"
    TEXT = "a text"
    INT = "a number"
    FLOAT = "a number with a fraction"
    BOOL = "a truth value"
    NULL = "nothing"


@dataclass(slots=True, eq=False)
class Node:
    """A piece of a document."""

    kind: Kind
    position: Position
    value: str | int | bool | None = None
    text: str = ""  # of a scalar, as written
    items: list[Node] = field(default_factory=list)
    entries: dict[str, tuple[Position, Node]] = field(default_factory=dict)
    size: int = 1  # nodes in it
    closed: bool = True


class _Stop(Exception):
    """The rest of the document cannot be read."""


def compose(text: str | bytes, report: Report) -> Node | None:
    """Return the document's root; None if it cannot be read, or is empty, with a mistake."""
    try:
        data = text.encode() if isinstance(text, str) else text
        data.decode()
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        before = error.object[: error.start]
        shown = before if isinstance(before, str) else before.decode(errors="replace")
        report.add(_position_of(shown), "the text is not valid UTF-8")
        return None
    if len(data) > MAX_BYTES:
        report.add(Position(), f"the document has {len(data)} bytes", f"at most {MAX_BYTES}")
        return None
    try:
        return _Composer(report).compose(data)
    except _Stop:
        return None
    except yaml.reader.ReaderError as error:
        before = data[: error.position] if isinstance(error.position, int) else b""
        report.add(_position_of(before.decode(errors="replace")), f"not YAML: {error.reason}")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Position(mark.line + 1, mark.column + 1) if mark else Position()
        context = f"{error.context}: " if error.context else ""
        report.add(where, f"not YAML: {context}{error.problem}")
    except (yaml.YAMLError, ValueError) as error:
        report.add(Position(), f"not YAML: {error}")
    return None


def _position_of(before: str) -> Position:
    """Return the position behind a text, its lines broken as YAML breaks them."""
    lines = _BREAK.split(before)
    return Position(len(lines), len(lines[-1]) + 1)


def _is_nothing(event: yaml.Event | None) -> bool:
    return isinstance(event, yaml.ScalarEvent) and not event.value and event.implicit[0]


class _Composer:
    def __init__(self, report: Report) -> None:
        self._report = report
        self._anchors: dict[str, Node] = {}
        self._stack: list[Node] = []
        self._keys: list[tuple[Position, Node] | None] = []  # of each open mapping: awaits a value
        self._root: Node | None = None
        self._started = False

    def compose(self, data: bytes) -> Node | None:
        events = _events(data)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                # Nothing but "---" at the end of a file, as templates leave it, is no document.
                if self._started and not _is_nothing(next(events, None)):
                    self._stop(event, "a second document begins here", "one document in a file")
                self._started = True
            elif isinstance(event, yaml.ScalarEvent):
                self._anchor(event, node := self._scalar(event))
                self._place(node)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._open(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._close()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
        if self._root is None:
            self._report.add(Position(), "the document is empty", "a tracing policy")
        return self._root

    def _stop(self, event: yaml.Event, message: str, allowed: str = "") -> None:
        self._report.add(_start(event), message, allowed)
        raise _Stop

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        mapping = isinstance(event, yaml.MappingStartEvent)
        if len(self._stack) >= MAX_DEPTH:
            self._stop(event, f"nested deeper than {MAX_DEPTH} levels")
        node = Node(Kind.MAPPING if mapping else Kind.LIST, _start(event), closed=False)
        self._check_tag(event, "map" if mapping else "seq")
        self._anchor(event, node)
        self._stack.append(node)
        self._keys.append(None)

    def _close(self) -> None:
        node = self._stack.pop()
        self._keys.pop()
        node.closed = True
        self._place(node)

    def _alias(self, event: yaml.AliasEvent) -> None:
        node = self._anchors.get(event.anchor or "")
        if node is None:
            self._stop(event, f"alias *{event.anchor} has no anchor")
        elif not node.closed:
            self._stop(event, f"alias *{event.anchor} contains itself")
        else:
            self._place(node)

    def _anchor(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, node: Node) -> None:
        if event.anchor:
            self._anchors[event.anchor] = node

    def _check_tag(self, event: yaml.CollectionStartEvent, wanted: str) -> None:
        if event.tag and event.tag not in ("!", _TAGS + wanted):
            self._report.add(_start(event), f"tag {event.tag} is not supported", "no tag")

    def _place(self, node: Node) -> None:
        """Put a finished node where the innermost open collection wants it."""
        if not self._stack:
            self._root = node
            return
        parent = self._stack[-1]
        parent.size += node.size
        if parent.size > MAX_NODES:
            self._report.add(node.position, f"more than {MAX_NODES} values after aliases")
            raise _Stop
        if parent.kind is Kind.LIST:
            parent.items.append(node)
        elif (waiting := self._keys[-1]) is None:
            self._keys[-1] = (node.position, node)
        else:
            self._keys[-1] = None
            self._enter(parent, waiting[1], node)

    def _enter(self, parent: Node, key: Node, value: Node) -> None:
        if key.kind in (Kind.MAPPING, Kind.LIST):
            self._report.add(key.position, f"a key is {key.kind.value}", "a text")
        elif key.text == "<<" and key.kind is Kind.NULL:
            self._merge(parent, value)
        elif key.text in parent.entries and parent.entries[key.text][0] != Position(0, 0):
            first = parent.entries[key.text][0]
            self._report.add(key.position, f'key "{key.text}" again: it is in line {first.line}')
        else:
            parent.entries[key.text] = (key.position, value)

    def _merge(self, parent: Node, value: Node) -> None:
        """Take over the entries of ``<<: *anchor`` that the mapping does not have itself."""
        for source in value.items if value.kind is Kind.LIST else [value]:
            if source.kind is not Kind.MAPPING:
                self._report.add(value.position, "<< merges mappings only", "an alias of a mapping")
                return
            for name, (_, node) in source.entries.items():
                # The position that no key has: a key of the mapping's own replaces it.
                parent.entries.setdefault(name, (Position(0, 0), node))

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        text, tag, position = event.value, event.tag, _start(event)
        if tag in (None, "!") and not event.implicit[0]:
            return Node(Kind.TEXT, position, text, text)
        if tag is None or (tag == "!" and event.implicit[0]):
            return _resolve(text, position)
        node = _resolve(text, position)
        name = tag.removeprefix(_TAGS)
        if name == "str":
            return Node(Kind.TEXT, position, text, text)
        wanted = {"int": Kind.INT, "bool": Kind.BOOL, "null": Kind.NULL, "float": Kind.FLOAT}
        if wanted.get(name) is not node.kind:
            self._report.add(position, f"tag {tag} does not fit {text!r}", "no tag")
        return node


def _events(data: bytes) -> Iterator[yaml.Event]:
    return yaml.parse(data, Loader=yaml.CSafeLoader)


def _start(event: yaml.Event) -> Position:
    mark = event.start_mark
    return Position(mark.line + 1, mark.column + 1) if mark else Position()


def _resolve(text: str, position: Position) -> Node:
    """Return the node of a plain scalar."""
    if text in _NULLS or text == "<<":
        return Node(Kind.NULL, position, None, text)
    if text in _BOOLS:
        return Node(Kind.BOOL, position, _BOOLS[text], text)
    if _INT.match(text) and (number := whole_number(text)) is not None:
        return Node(Kind.INT, position, number, text)
    if _FLOAT.match(text) or _INF.match(text):
        return Node(Kind.FLOAT, position, text, text)
    return Node(Kind.TEXT, position, text, text)


def whole_number(text: str) -> int | None:
    """Return a number as Go's ParseInt with base 0 reads it; None if it does not.

    Decimal, 0x, 0o or leading 0, 0b; an underscore may stand between digits or after the prefix.
    """
    sign = -1 if text.startswith("-") else 1
    digits = text[1:] if text[:1] in ("-", "+") else text
    if len(digits) > 80 or not _DIGITS.match(digits):
        return None
    if len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567_":
        digits = "0o" + digits[1:]
    try:
        return sign * int(digits, 0)
    except ValueError:
        return None


__all__ = ["Kind", "Node", "compose", "whole_number"]
