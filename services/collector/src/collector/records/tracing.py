"""Decode records of policies: the other side of bpf/tracing/record.h.

A record is a fixed head and items in any order, each with its type, position and length. The type
selects the form of the payload: one decoder a form, in `_DECODERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
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
_NUMBERS_MAX = 8  # of a record of numbers only that is read at once
# The heads of so many items of eight bytes each, one word a head.
_HEADS = [Struct("<" + "Q8x" * items) for items in range(_NUMBERS_MAX + 1)]
_FILE = Struct("<IHH")

_ABSENT = values.Absent()
# enum hash_algo of include/uapi/linux/hash_info.h: bytes of a digest.
_DIGEST_SIZES = {0: 16, 1: 16, 2: 20, 3: 20, 4: 32, 5: 48, 6: 64, 7: 28, 13: 64, 17: 32}

_ITEM_ERROR, _ITEM_TRUNCATED, _ITEM_ABSTRACT = 1, 2, 4
_POSITION_DATA, _POSITION_RETURN = 16, 32
_KERNEL_STACK, _USER_STACK, _IMA_HASH = 48, 49, 50
_ERROR_VALUE, _ERROR_RESOLVE, _ERROR_BUFFER = 1, 2, 3
SOCK_OWNER, ITEMS_DROPPED, FELL_BACK = 2, 1, 16  # enum tracing_flags


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
        selector, action, return_action, record_flags, items_len, items,
    ) = _HEAD.unpack_from(data)  # fmt: skip
    at, end = _HEAD.size, _HEAD.size + items_len
    if end > len(data):
        raise IndexError(f"{items_len} bytes of items, {len(data) - _HEAD.size} there")
    args: list[Value] = []
    others: dict[int, Value] = {}
    if items <= _NUMBERS_MAX and items_len == items * 2 * _ITEM.size:
        numbers = _numbers(_HEADS[items].unpack_from(data, at))
        if numbers is not None:
            args, items = [*numbers.unpack_from(data, at)], 0
    for _ in range(items):
        kind, position, flags, size = _ITEM.unpack_from(data, at)
        at += _ITEM.size
        if at + size > end:
            raise IndexError(f"an item of {size} bytes, {end - at} there")
        value = _value(kind, flags, data[at : at + size])
        at += (size + 7) & ~7
        if position == len(args) < _POSITION_DATA:  # as good as always
            args.append(value)
        elif position < _POSITION_DATA:
            args += [_ABSENT] * (position + 1 - len(args))
            args[position] = value
        else:
            others[position] = value
    head = (policy, revision, hook, ktime_ns, image_ktime_ns, pid, tid, action + 1, tuple(args))
    if not others:
        return TracingRecord(
            *head,
            (),
            (),
            return_action + 1,
            (),
            (),
            None,
            start_boottime,
            selector,
            record_flags & FELL_BACK,
        )
    return TracingRecord(
        *head,
        _between(others, _POSITION_DATA, _POSITION_RETURN)
        if min(others) < _POSITION_RETURN
        else (),
        (others[_POSITION_RETURN],) if _POSITION_RETURN in others else (),
        return_action + 1,
        _stack(others, _KERNEL_STACK),
        _stack(others, _USER_STACK),
        _ima_hash(others),
        start_boottime,
        selector,
        record_flags & FELL_BACK,
    )


@lru_cache(256)
def _numbers(heads: tuple[int, ...]) -> Struct | None:
    """Return the values behind the heads of items, if these are numbers, the arguments in turn.

    Most records are so, and reading an item costs as much as reading all of theirs at once.
    """
    form = "<"
    for place, head in enumerate(heads):
        kind, position, flags, size = _ITEM.unpack(_U64.pack(head))
        number = _NUMBERS.get(_DECODERS.get(kind))
        if number is None or (position, flags, size) != (place, 0, _U64.size):
            return None
        form += f"8x{number}"
    return Struct(form)


def _between(found: dict[int, Value], first: int, last: int) -> tuple[Value, ...]:
    """Return the values by position, `Absent` in between where there is none."""
    end = max((position for position in found if first <= position < last), default=-1)
    return tuple(found.get(position, _ABSENT) for position in range(first, end + 1))


def _stack(found: dict[int, Value], position: int) -> tuple[int, ...]:
    stack = found.get(position)
    return cast("tuple[int, ...]", stack) if type(stack) is tuple else ()


def _ima_hash(found: dict[int, Value]) -> tuple[int, bytes] | None:
    digest = found.get(_IMA_HASH)
    if not isinstance(digest, bytes) or len(digest) <= _U64.size:
        return None
    (algorithm,) = _U64.unpack_from(digest)
    size = _DIGEST_SIZES.get(algorithm, len(digest))
    return algorithm, digest[_U64.size : _U64.size + size]


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


_SOCK = Struct("<QIIHHHHHHI16s16s")
_SKB = Struct("<IIIIHHHHII16s16s")
_SOCKADDR = Struct("<HHI16s")
_CRED = Struct("<10I3QiIII")
_USER_NAMESPACE = Struct("<iIII")
_BPF_PROGRAM = Struct("<II16s")
_BPF_MAP = Struct("<IIII16s")
_PERF_EVENT = Struct("<QQII128s")
_MODULE = Struct("<QII64s")
_COMPAT = 0x8000_0000
_ADDRESS_SIZES = {2: 4, 10: 16}  # AF_INET, AF_INET6


def _address(family: int, raw: bytes) -> bytes:
    return raw[: _ADDRESS_SIZES.get(family, 0)]


def _sock(data: bytes, flags: int) -> Value:
    cookie, mark, priority, family, kind, protocol, state, sport, dport, _, saddr, daddr = (
        _SOCK.unpack(data)
    )
    return values.Sock(
        family, kind, protocol, state, mark, priority, _address(family, saddr),
        _address(family, daddr), sport, dport, cookie,
    )  # fmt: skip


def _skb(data: bytes, flags: int) -> Value:
    hash_, size, mark, priority, family, protocol, sport, dport, path, opath, saddr, daddr = (
        _SKB.unpack(data)
    )
    return values.Skb(
        hash_, size, priority, mark, _address(family, saddr), _address(family, daddr), sport,
        dport, protocol, family, path, opath,
    )  # fmt: skip


def _sockaddr(data: bytes, flags: int) -> Value:
    family, port, _, address = _SOCKADDR.unpack(data)
    return values.Sockaddr(family, _address(family, address), port)


def _sockaddr_un(data: bytes, flags: int) -> Value:
    path = data[8:]
    if flags & _ITEM_ABSTRACT:
        path = b"\0" + path[1:]
    return values.SockaddrUn(int.from_bytes(data[:2], "little"), path)


def _user_namespace(data: bytes, flags: int) -> Value:
    return values.UserNamespace(*_USER_NAMESPACE.unpack(data))


def _cred(data: bytes, flags: int) -> Value:
    uid, gid, suid, sgid, euid, egid, fsuid, fsgid, bits, _, *rest = _CRED.unpack(data)
    permitted, effective, inheritable, *user_ns = rest
    return values.Cred(
        uid, gid, euid, egid, suid, sgid, fsuid, fsgid, bits, permitted, effective, inheritable,
        values.UserNamespace(*user_ns),
    )  # fmt: skip


def _bpf_program(data: bytes, flags: int) -> Value:
    kind, instructions, name = _BPF_PROGRAM.unpack(data)
    return values.BpfProgram(kind, instructions, _until_nul(name))


def _bpf_map(data: bytes, flags: int) -> Value:
    kind, key, value, entries, name = _BPF_MAP.unpack(data)
    return values.BpfMap(kind, key, value, entries, _until_nul(name))


def _perf_event(data: bytes, flags: int) -> Value:
    config, offset, kind, _, function = _PERF_EVENT.unpack(data)
    return values.PerfEvent(_until_nul(function), kind, config, offset)


def _module(data: bytes, flags: int) -> Value:
    taints, signature, _, name = _MODULE.unpack(data)
    return values.Module(_until_nul(name), taints, None if signature > 1 else bool(signature))


def _syscall(data: bytes, flags: int) -> Value:
    number = int.from_bytes(data[:8], "little")
    return values.Syscall(number & ~_COMPAT, bool(number & _COMPAT))


def _buffer(data: bytes, flags: int) -> Value:
    (size,) = _U64.unpack_from(data)
    text = data[_U64.size :]
    return values.TruncatedBytes(text, size) if flags & _ITEM_TRUNCATED else text


def _until_nul(raw: bytes) -> bytes:
    return raw.split(b"\0", 1)[0]


# By number of the item's type: `TypeInfo.number`, or enum item_type.
_DECODERS: dict[int, Callable[[bytes, int], Value]] = {
    **dict.fromkeys((1, 31, 29, 12, 10, 23, 45), _signed),
    **dict.fromkeys((32, 30, 13, 11, 4, 33, 34, 35, 36, 47, 51, 52, 53, 54), _unsigned),
    **dict.fromkeys((6, 14, 38, 39), _text),
    **dict.fromkeys((15, 16, 17, 24, 37, 42), _file),
    **dict.fromkeys((7, 41, 46), _sock),
    **dict.fromkeys((2, 3, 25, 48), _buffer),
    **dict.fromkeys((19, 43), _bpf_program),
    **dict.fromkeys((26, 27), _module),
    5: _skb,
    8: _cred,
    18: _words,
    20: _perf_event,
    21: _bpf_map,
    22: _user_namespace,
    28: _syscall,
    40: _sockaddr,
    44: _sockaddr_un,
    64: _words,
    65: _text,
}
_NUMBERS: dict[object, str] = {_signed: "q", _unsigned: "Q"}  # as `struct` reads them
