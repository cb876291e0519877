"""Cut an event of any kind to the largest size that the bus takes.

Nothing here knows the kind of event: the longest texts, byte strings and lists anywhere in the
message are cut first. A process that lost some of its fields carries the flag truncArgs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process

_LENGTHS = 64  # room for lengths and tags that change with the contents
_PASSES = 64
_MARK = "truncArgs"

_Part = tuple[int, Message, FieldDescriptor]  # bytes, the message that has it, which field


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
        part = max(_parts(message, None), key=lambda found: found[0][0], default=None)
        if part is None:
            return None
        (size, owner, field), process = part
        _cut(size, owner, field, excess + _LENGTHS)
        if process is not None and _MARK not in process.flags:
            process.flags = f"{process.flags} {_MARK}".lstrip()
    return None


def _parts(message: Message, process: Process | None) -> Iterator[tuple[_Part, Process | None]]:
    """Yield everything that can be cut, with the process that it belongs to."""
    if isinstance(message, Process):
        process = message
    for field, value in message.ListFields():
        if field.name in ("node_name", "exec_id", "parent_exec_id", "flags"):
            continue  # without these an event cannot be attributed
        if field.is_repeated:
            size = sum(_size(item) for item in value)
            if size:
                yield (size, message, field), process
            if field.type == FieldDescriptor.TYPE_MESSAGE and not _is_map(field):
                for item in value:
                    yield from _parts(item, process)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from _parts(value, process)
        elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            yield (_size(value) + 1, message, field), process  # before a list with only this in it


def _is_map(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and kind.GetOptions().map_entry


def _size(value: Any) -> int:
    if isinstance(value, Message):
        return value.ByteSize() + 2
    if isinstance(value, str):
        return len(value.encode())
    return len(value) + 2 if isinstance(value, bytes) else 2


def _cut(size: int, owner: Message, field: FieldDescriptor, excess: int) -> None:
    value = getattr(owner, field.name)
    if field.is_repeated:
        if _is_map(field):
            owner.ClearField(field.name)
            return
        while value and excess > 0:  # from the end
            excess -= _size(value[-1])
            del value[-1]
        return
    keep = max(0, size - 1 - excess)
    if isinstance(value, str):
        setattr(owner, field.name, value.encode()[:keep].decode(errors="ignore"))
    else:
        setattr(owner, field.name, value[:keep])
