"""Field filters: which members of an event are sent, by paths relative to the inner message."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from eventfilters.errors import FilterError
from eventfilters.event import Event
from eventfilters.regex import shorten
from tetragon.events_pb2 import INCLUDE, FieldFilter, GetEventsResponse

# Names below a path, as a tree; an empty tree stands for everything below.
Tree = dict[str, "Tree"]

# From an event the message to send, None where that is the event itself.
Rewrite = Callable[[Event], GetEventsResponse | None]


def build(filters: Iterable[FieldFilter]) -> Rewrite | None:
    """Return what makes the message to send from an event, or None where no field is left out.

    Raises `FilterError` naming a malformed path.
    """
    steps = [step for step in map(_step, filters) if step is not None]
    if not steps:
        return None

    def rewrite(event: Event) -> GetEventsResponse | None:
        wanted = [(tree, keep) for applies, tree, keep in steps if applies(event.type)]
        kind = event.kind
        if not wanted or kind is None:
            return None
        message = GetEventsResponse()
        message.CopyFrom(event.message)
        inner = getattr(message, kind)
        for tree, keep in wanted:
            (_keep if keep else _remove)(inner, tree)
        return message

    return rewrite


def _step(
    wanted: FieldFilter,
) -> tuple[Callable[[int], bool], Tree, bool] | None:
    if not wanted.fields.paths:
        return None  # an empty list changes nothing
    tree: Tree = {}
    for path in wanted.fields.paths:
        _add(tree, path)
    types = frozenset(wanted.event_set)
    inverted = wanted.invert_event_set.value

    def applies(event_type: int) -> bool:
        return not types or (event_type in types) != inverted

    return applies, tree, wanted.action == INCLUDE


def _add(tree: Tree, path: str) -> None:
    names = path.split(".")
    if not all(names):
        raise FilterError(f"field_filters: path {shorten(path)!r}: empty name in it")
    at = tree
    for number, name in enumerate(names):
        if name in at and not at[name]:
            return  # a shorter path includes it
        if number == len(names) - 1:
            at[name] = {}
        else:
            at = at.setdefault(name, {})


def _keep(message: Message, tree: Tree) -> None:
    for field, value in message.ListFields():
        below = tree.get(field.name)
        if below is None:
            message.ClearField(field.name)
        elif below:
            for element in _messages(field, value):
                _keep(element, below)


def _remove(message: Message, tree: Tree) -> None:
    for field, value in message.ListFields():
        below = tree.get(field.name)
        if below is None:
            continue
        if below:
            for element in _messages(field, value):
                _remove(element, below)
        else:
            message.ClearField(field.name)


# A path below a list applies to each of its messages; below a map or a number it names nothing.
def _messages(field: FieldDescriptor, value: object) -> list[Message]:
    if field.message_type is None or field.message_type.GetOptions().map_entry:
        return []
    return list(value) if field.is_repeated else [value]  # type: ignore[call-overload, list-item]
