"""Decode records of policies: the other side of bpf/tracing/record.h.

A record is a fixed head and items in any order, each with its type, position and length. The type
selects the form of the payload: one decoder a form, in `_DECODERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as StructError
from typing import NamedTuple, cast

from collector.errors import DecodeError
from collector.records import values
from collector.records.values import Path, TracingRecord, Unreadable, Value

RECORD_TRACING = 16
_HEAD = Struct("<IIIIQQQIIIIIIII")  # struct tracing_record
_ITEM = Struct("<HBBI")  # struct item
_ERROR = Struct("<Ii")
_U64 = Struct("<Q")
_FILE = Struct("<IHH")

_ABSENT = values.Absent()
_ITEM_ERROR, _ITEM_TRUNCATED = 1, 2
_POSITION_DATA, _POSITION_RETURN = 16, 32
_KERNEL_STACK, _USER_STACK, _IMA_HASH, _RETURN_COPY = 48, 49, 50, 51
_ERROR_VALUE, _ERROR_RESOLVE, _ERROR_BUFFER = 1, 2, 3
SOCK_OWNER, ITEMS_DROPPED = 2, 1  # enum tracing_flags


class Extras(NamedTuple):
    """What a record says beside the event."""

    selector: int
    flags: int


def decode_tracing(data: bytes) -> TracingRecord:
    """Return the record in ``data``; raise `DecodeError` if it is malformed."""
    try:
        return _decode(data)
    except (StructError, IndexError, KeyError) as error:
        raise DecodeError(f"tracing record: {error}", size_bytes=len(data)) from None


def decode_extras(data: bytes) -> Extras:
    """Return which selector matched, and flags, of a record that `decode_tracing` accepts."""
    head = _HEAD.unpack_from(data)
    return Extras(head[9], head[12])


def _decode(data: bytes) -> TracingRecord:
    (
        _, policy, revision, hook, ktime_ns, image_ktime_ns, start_boottime, pid, tid,
        _, action, return_action, _, items_len, items,
    ) = _HEAD.unpack_from(data)  # fmt: skip
    at, end = _HEAD.size, _HEAD.size + items_len
    if end > len(data):
        raise IndexError(f"{items_len} bytes of items, {len(data) - _HEAD.size} there")
    found: dict[int, Value] = {}
    for _ in range(items):
        kind, position, flags, size = _ITEM.unpack_from(data, at)
        at += _ITEM.size
        if at + size > end:
            raise IndexError(f"an item of {size} bytes, {end - at} there")
        found[position] = _value(kind, flags, data[at : at + size])
        at += (size + 7) & ~7
    return TracingRecord(
        policy, revision, hook, ktime_ns, image_ktime_ns, pid, tid, action + 1,
        _between(found, 0, _POSITION_DATA), _between(found, _POSITION_DATA, _POSITION_RETURN),
        _between(found, _POSITION_RETURN, _KERNEL_STACK), return_action + 1,
        _stack(found, _KERNEL_STACK), _stack(found, _USER_STACK), _ima_hash(found),
        start_boottime,
    )  # fmt: skip


def _between(found: dict[int, Value], first: int, last: int) -> tuple[Value, ...]:
    """Return the values by position, `Absent` in between where there is none."""
    end = max((position for position in found if first <= position < last), default=-1)
    return tuple(found.get(position, _ABSENT) for position in range(first, end + 1))


def _stack(found: dict[int, Value], position: int) -> tuple[int, ...]:
    stack = found.get(position)
    return cast("tuple[int, ...]", stack) if type(stack) is tuple else ()


def _ima_hash(found: dict[int, Value]) -> tuple[int, bytes] | None:
    digest = found.get(_IMA_HASH)
    return (digest[0], digest[1:]) if isinstance(digest, bytes) and digest else None


def _value(kind: int, flags: int, data: bytes) -> Value:
    if not flags & _ITEM_ERROR:
        return _DECODERS[kind](data, flags)
    reason, detail = _ERROR.unpack_from(data)
    if reason == _ERROR_RESOLVE:
        return Unreadable(detail)
    if reason >= _ERROR_BUFFER:
        return values.BufferFault(detail)
    return Unreadable()


def _signed(data: bytes, flags: int) -> Value:
    return int.from_bytes(data[:8], "little", signed=True)


def _unsigned(data: bytes, flags: int) -> Value:
    return int.from_bytes(data[:8], "little")


def _text(data: bytes, flags: int) -> Value:
    return data


def _file(data: bytes, flags: int) -> Value:
    if not data:
        return None
    walk, mode, _ = _FILE.unpack_from(data)
    return Path(data[_FILE.size :], walk, mode)


def _words(data: bytes, flags: int) -> Value:
    return tuple(word for (word,) in _U64.iter_unpack(data))


# By number of the item's type: `TypeInfo.number`, or enum item_type.
_DECODERS: dict[int, Callable[[bytes, int], Value]] = {
    **dict.fromkeys((1, 31, 29, 12, 10, 23, 45), _signed),
    **dict.fromkeys((32, 30, 13, 11, 4, 33, 34, 35, 36), _unsigned),
    **dict.fromkeys((6, 14, 38, 39), _text),
    **dict.fromkeys((15, 16, 17, 24, 37, 42), _file),
    18: _words,
    64: _words,
}
