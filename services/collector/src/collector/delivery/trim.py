"""Cut an event of any kind to the largest size that the bus accepts.

Nothing here knows the kind of event: the longest texts, byte strings and lists anywhere in the
message are cut first. A process that lost some of its fields carries the flag truncArgs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process

_LENGTHS = 64  # room for lengths and tags that change with the contents
_PASSES = 64
_WORTHWHILE = 8  # a part of less than this fraction of the excess is not cut alone
_MARK = "truncArgs"
# Without these an event cannot be attributed.
_KEPT = frozenset(("node_name", "exec_id", "parent_exec_id", "flags"))


class _Part(NamedTuple):
    """Something that can be cut."""

    size: int
    owner: Message
    field: FieldDescriptor
    process: Process | None  # that it belongs to

    @property
    def is_list_of_messages(self) -> bool:
        return self.field.is_repeated and self.field.type == FieldDescriptor.TYPE_MESSAGE


def trim(event: bytes, size_bytes: int) -> bytes | None:
    """Return ``event`` in at most ``size_bytes``; None if it cannot be cut that small."""
    try:
        message = GetEventsResponse.FromString(event)
    except DecodeError:
        return None
    for _ in range(_PASSES):
        excess = message.ByteSize() - size_bytes
        if excess <= 0:
            return message.SerializeToString()
        part = _choose(list(_parts(message, None)), excess)
        if part is None:
            return None
        _cut(part, excess + _LENGTHS)
        if part.process is not None and _MARK not in part.process.flags:
            part.process.flags = f"{part.process.flags} {_MARK}".lstrip()
    return None


def _choose(parts: list[_Part], excess: int) -> _Part | None:
    """Return the largest part; a list of messages only if no single part is worthwhile."""
    parts.sort(key=lambda part: part.size, reverse=True)
    single = next((part for part in parts if not part.is_list_of_messages), None)
    if single is not None and single.size * _WORTHWHILE >= excess:
        return single
    return parts[0] if parts else None


def _parts(message: Message, process: Process | None) -> Iterator[_Part]:
    if isinstance(message, Process):
        process = message
    for field, value in message.ListFields():
        if field.name in _KEPT:
            continue
        if field.is_repeated:
            if size := sum(_size(value[key] if _is_map(field) else key) for key in value):
                yield _Part(size, message, field, process)
            if field.type == FieldDescriptor.TYPE_MESSAGE and not _is_map(field):
                for item in value:
                    yield from _parts(item, process)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from _parts(value, process)
        elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES) and value:
            yield _Part(_size(value), message, field, process)


def _is_map(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and bool(kind.GetOptions().map_entry)


def _size(value: Any) -> int:
    if isinstance(value, Message):
        return value.ByteSize() + 2
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytes) else 2


def _cut(part: _Part, excess: int) -> None:
    value = getattr(part.owner, part.field.name)
    if _is_map(part.field):
        part.owner.ClearField(part.field.name)
    elif part.field.is_repeated:
        while value and excess > 0:  # from the end
            excess -= _size(value[-1]) + 1
            del value[-1]
    elif isinstance(value, str):
        keep = max(0, part.size - excess)
        setattr(part.owner, part.field.name, value.encode()[:keep].decode(errors="ignore"))
    else:
        setattr(part.owner, part.field.name, value[: max(0, part.size - excess)])
