"""Changes one thing in a protobuf message, by its schema."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

# What a terminal obeys, what regexes, selectors, paths and CEL are made of, and their bounds.
_LIST = "[1,2,3,4,5,6,7,8,9,10]"
_LOOPS = (
    f"{_LIST}.all(a,{_LIST}.all(b,{_LIST}.all(c,{_LIST}.all(d,process_exec.process.pid != 7u))))"
)
TEXTS = (
    "", "x", "\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\r\n", "\t", "\b", "\x7f", "\x00", "\u202e",
    "\u2028", "\U000e0041", "\ufffd", "🚀", "漢字", "e\u0301", " ", '"', "\\", "{{binary}}", "[b]",
    "/usr/bin/true", "^/usr/", "(", "(?=x)", "a{1000}", "(a*)*$", "\\pN", "[[:alpha:]]", "\\C",
    "process", "process.pid", "a..b", ".", "*", "parent.binary", "ancestors.binary", "a=b", "!x",
    "a in (b,c)", "a notin (b)", "a>1", "a<99999999999999999999", "x" * 300, "\x1b" * 40,
    "process_exec.process.pid > 1u", "process_exit.signal == 'SIGKILL'", "true", "1/0 == 1",
    "process_exec.process.binary.matches('x')", "process_exec.process.pid / 0u == 1u",
    _LOOPS, "[1].all(x, x > 0) && has(process_exec.parent)",
    "node-1", "bm9kZTo1OjE=", "execve procFS", "SIGKILL", "__x64_sys_write", "tcp_connect",
    "security_file_permission", "fd_install", "raw_syscalls", "sys_enter",
)  # fmt: skip
_NUMBERS = (0, 1, 2, 3, 7, 9, 21, 127, 128, 255, 1000, 999_999_999, 1_767_225_600, 1 << 20)
_EDGES = (31, 32, 53, 63, 64)
_DEPTH = 5


def changed(data: bytes, kind: type[Message], rng: Random, inside: Mapping[str, Any]) -> bytes:
    """Return the message in ``data`` with one to three changes; it is new where it is none.

    ``inside`` names bytes fields that hold a message, with its type.
    """
    message = kind()
    try:
        message.MergeFromString(data)
    except DecodeError:
        message.Clear()
    for _ in range(rng.randrange(1, 4)):
        _change(message, rng, inside, _DEPTH)
    return message.SerializeToString()


def _change(message: Message, rng: Random, inside: Mapping[str, Any], depth: int) -> None:
    fields = [field for field, _ in message.ListFields()]
    if not fields or rng.random() < 0.3:
        fields = list(message.DESCRIPTOR.fields)
    if not fields:
        return
    field = rng.choice(fields)
    if rng.random() < 0.08:
        message.ClearField(field.name)
        return
    value: Any = getattr(message, field.name)
    if field.message_type and field.message_type.GetOptions().map_entry:
        types = field.message_type.fields_by_name
        if types["value"].message_type is None:
            value[_scalar(types["key"], None, rng, inside)] = _scalar(
                types["value"], None, rng, inside
            )
    elif field.message_type:
        if depth == 0:
            return
        if field.is_repeated:
            child = value.add() if not value or rng.random() < 0.2 else rng.choice(value)
        else:
            child = value
            child.SetInParent()
        if rng.random() < 0.9:
            _change(child, rng, inside, depth - 1)
    elif field.is_repeated:
        if not value or rng.random() < 0.3:
            value.append(_scalar(field, None, rng, inside))
        elif rng.random() < 0.2:
            del value[rng.randrange(len(value))]
        else:
            at = rng.randrange(len(value))
            value[at] = _scalar(field, value[at], rng, inside)
    else:
        setattr(message, field.name, _scalar(field, value, rng, inside))


def _scalar(field: FieldDescriptor, old: Any, rng: Random, inside: Mapping[str, Any]) -> Any:
    kind = field.type
    if kind == FieldDescriptor.TYPE_STRING:
        return _text(old or "", rng)
    if kind == FieldDescriptor.TYPE_BYTES:
        if field.name in inside and rng.random() < 0.9:
            return changed(old or b"", inside[field.name], rng, inside)
        return rng.randbytes(rng.randrange(12))
    if kind == FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    if kind in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return rng.choice((0.0, -0.0, 1.5, 1e300, float("nan"), float("inf"), float("-inf")))
    if field.enum_type is not None:
        return rng.choice((*field.enum_type.values_by_number, 77777, -1))
    signed = field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
    wide = field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
    bits = (64 if wide else 32) - signed
    low, high = -(1 << bits) if signed else 0, (1 << bits) - 1
    number = rng.choice(_NUMBERS) if rng.random() < 0.6 else 1 << rng.choice(_EDGES)
    number += rng.choice((0, 0, 0, 1, -1))
    return max(low, min(high, -number if signed and rng.random() < 0.3 else number))


def _text(old: str, rng: Random) -> str:
    new = rng.choice(TEXTS)
    match rng.randrange(4):
        case 0:
            return new
        case 1:
            return (old + new)[:2000]
        case 2:
            at = rng.randrange(len(old) + 1)
            return (old[:at] + new + old[at:])[:2000]
        case _:
            at = rng.randrange(len(old) + 1)
            return old[:at] + chr(rng.choice((0x1B, 0x41, 0xA0, 0x2066, 0x1F680))) + old[at + 1 :]
