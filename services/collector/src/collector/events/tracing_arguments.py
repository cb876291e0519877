"""Values of arguments to serialized tetragon.KprobeArgument, one function per argument type.

`encoder` returns the function for one argument of one hook, with its field tag and label already
encoded: per event there is one call per argument and no look-up by type.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from collector.events import kernel_names as names
from collector.events.image import capability_list
from collector.records import values as v
from collector.records.text import utf8
from tetragon.capabilities_pb2 import CapabilitiesType, SecureBitsType
from tetragon.tetragon_pb2 import KprobeArgument, TaintedBitsType
from wire.write import VARINT, message, tag, varint

Encode = Callable[[Any], bytes]

_MASK64 = (1 << 64) - 1

_FIELDS = KprobeArgument.DESCRIPTOR.fields_by_name
_NUMBERS = {name: tag(field.number, VARINT) for name, field in _FIELDS.items()}
_LENGTHS = {name: tag(field.number) for name, field in _FIELDS.items()}
_LABEL = _LENGTHS["label"]

_FAULTS = {
    v.FAULT_NO_MEMORY: b"CharBufErrorENOMEM",
    v.FAULT_PAGE: b"CharBufErrorPageFault",
    v.FAULT_TOO_LARGE: b"CharBufErrorBufTooLarge",
}
_TAINTS = tuple(bit for bit in TaintedBitsType.values() if bit)
_SECUREBITS = tuple(bit for bit in SecureBitsType.values() if bit)


def text(field_tag: bytes, raw: bytes) -> bytes:
    """Return a string field, nothing for an empty text; what is not UTF-8 is replaced."""
    if not raw:
        return b""
    if not raw.isascii():
        raw = utf8(raw).encode()
    return field_tag + varint(len(raw)) + raw


def number(field_tag: bytes, value: int) -> bytes:
    """Return a varint field, nothing for 0; negative values in two's complement."""
    return field_tag + varint(value & _MASK64) if value else b""


@lru_cache(4096)
def wrapped(field_tag: bytes, value: int) -> bytes:
    """Return an Int32Value, UInt32Value or BoolValue: present even when it holds 0."""
    if not value:
        return field_tag + b"\0"
    return message(field_tag, b"\x08" + varint(value & _MASK64))


def _tags(*fields: int) -> tuple[bytes, ...]:
    return tuple(tag(field) for field in fields)


_ONE, _TWO, _THREE, _FOUR, _FIVE = _tags(1, 2, 3, 4, 5)


# Bodies of the messages that an argument can be. Each takes the value of its type.


def _named_path(value: v.Path | None, path: bytes, flags: bytes, permission: bytes) -> bytes:
    if value is None:  # nothing could be walked: Tetragon shows the root
        value = v.Path(b"/")
    out = text(path, value.text)
    if value.flags & v.UNRESOLVED_COMPONENTS:
        out += text(flags, b"unresolvedPathComponents")
    return out + _permission(permission, value.mode)


@lru_cache(1024)
def _permission(field_tag: bytes, mode: int) -> bytes:
    return text(field_tag, names.permission(mode).encode())


def _file(value: v.Path | None) -> bytes:
    return _named_path(value, _TWO, _THREE, _FOUR)


def _binprm(value: v.Path | None) -> bytes:
    return _named_path(value, _ONE, _TWO, _THREE)


@lru_cache(4096)
def _word(field_tag: bytes, word: str) -> bytes:
    return text(field_tag, word.encode())


_SOCK = (
    tag(4, VARINT),
    tag(5, VARINT),
    *_tags(6, 7),
    tag(8, VARINT),
    tag(9, VARINT),
    tag(10, VARINT),
    tag(11),
)


def _sock_with(family: Callable[[int], str]) -> Encode:
    mark, priority, saddr, daddr, sport, dport, cookie, state = _SOCK

    def encode(value: v.Sock) -> bytes:
        return b"".join(
            (
                _word(_ONE, family(value.family)),
                _word(_TWO, names.SOCKET_TYPES.get(value.type) or str(value.type)),
                _word(_THREE, names.PROTOCOLS.get(value.protocol) or str(value.protocol)),
                number(mark, value.mark),
                number(priority, value.priority),
                _word(saddr, names.address(value.saddr)),
                _word(daddr, names.address(value.daddr)),
                number(sport, value.sport),
                number(dport, value.dport),
                number(cookie, value.cookie),
                _word(state, names.TCP_STATES.get(value.state) or str(value.state)),
            )
        )

    return encode


_SKB = tuple(tag(number) if number in (5, 6) else tag(number, VARINT) for number in range(1, 12))
_SKB_PROTOCOL, _SKB_FAMILY = _tags(12, 13)


def _skb_with(family: Callable[[int], str]) -> Encode:
    def encode(value: v.Skb) -> bytes:
        return b"".join(
            (
                number(_SKB[0], value.hash),
                number(_SKB[1], value.len),
                number(_SKB[2], value.priority),
                number(_SKB[3], value.mark),
                _word(_SKB[4], names.address(value.saddr)),
                _word(_SKB[5], names.address(value.daddr)),
                number(_SKB[6], value.sport),
                number(_SKB[7], value.dport),
                number(_SKB[8], value.protocol),
                number(_SKB[9], value.sec_path_len),
                number(_SKB[10], value.sec_path_olen),
                _word(_SKB_PROTOCOL, names.PROTOCOLS.get(value.protocol) or str(value.protocol)),
                _word(_SKB_FAMILY, family(value.family)),
            )
        )

    return encode


_PORT = tag(3, VARINT)


def _sockaddr(value: v.Sockaddr) -> bytes:
    return (
        _word(_ONE, names.known_family(value.family))
        + _word(_TWO, names.address(value.addr))
        + number(_PORT, value.port)
    )


def _sockaddr_un(value: v.SockaddrUn) -> bytes:
    path = value.path
    if path[:1] == b"\0":  # an abstract name: no file has it
        path = b"@" + path.replace(b"\0", b"")
    return _word(_ONE, names.known_family(value.family)) + text(_TWO, path.partition(b"\0")[0])


def _user_namespace(value: v.UserNamespace) -> bytes:
    namespace = number(b"\x08", value.inum) + (b"" if value.level else b"\x10\x01")
    return (
        wrapped(_ONE, value.level)
        + wrapped(_TWO, value.uid)
        + wrapped(_THREE, value.gid)
        + message(_FOUR, namespace)
    )


_IDS = _tags(*range(1, 9))
_CRED_SECUREBITS, _CRED_CAPS, _CRED_USER_NS = _tags(9, 10, 11)


def _cred(value: v.Cred) -> bytes:
    out = b"".join(wrapped(field, one) for field, one in zip(_IDS, value[:8], strict=True))
    out += _bits(_CRED_SECUREBITS, _SECUREBITS, value.securebits)
    capabilities = b"".join(
        message(field, capability_list(mask))
        for field, mask in (
            (_ONE, value.permitted),
            (_TWO, value.effective),
            (_THREE, value.inheritable),
        )
        if mask
    )
    out += message(_CRED_CAPS, capabilities)
    return out + message(_CRED_USER_NS, _user_namespace(value.user_ns))


def _bits(field_tag: bytes, bits: tuple[int, ...], mask: int) -> bytes:
    packed = b"".join(varint(bit) for bit in bits if mask & bit)
    return message(field_tag, packed) if packed else b""


def _capability(value: int) -> bytes:
    known = CapabilitiesType.DESCRIPTOR.values_by_number.get(value)
    return wrapped(_ONE, value) + (_word(_TWO, known.name) if known is not None else b"")


_COUNT = tag(2, VARINT)


def _bpf_program(value: v.BpfProgram) -> bytes:
    return (
        _word(_ONE, names.bpf_program_type(value.type))
        + number(_COUNT, value.instructions)
        + text(_THREE, value.name)
    )


_MAP_SIZES = (tag(2, VARINT), tag(3, VARINT), tag(4, VARINT))


def _bpf_map(value: v.BpfMap) -> bytes:
    return b"".join(
        (
            _word(_ONE, names.bpf_map_type(value.type)),
            number(_MAP_SIZES[0], value.key_size),
            number(_MAP_SIZES[1], value.value_size),
            number(_MAP_SIZES[2], value.max_entries),
            text(_FIVE, value.name),
        )
    )


_CONFIG, _PROBE_OFFSET = tag(3, VARINT), tag(4, VARINT)


def _perf_event(value: v.PerfEvent) -> bytes:
    return (
        text(_ONE, value.kprobe_func)
        + _word(_TWO, names.perf_type(value.type))
        + number(_CONFIG, value.config)
        + number(_PROBE_OFFSET, value.probe_offset)
    )


def _module(value: v.Module) -> bytes:
    out = text(_ONE, value.name)
    if value.signature_ok is not None:
        out += wrapped(_TWO, value.signature_ok)
    return out + _bits(_THREE, _TAINTS, value.taints)


def syscall_with(native: str, compat: str) -> Encode:
    """Return the encoder of a SyscallId, with the names of the machine's two interfaces."""

    def encode(value: v.Syscall) -> bytes:
        return number(b"\x08", value.id) + _word(_TWO, compat if value.compat else native)

    return encode


# Whole arguments: the member of the oneof, present even when it is 0 or empty.


class _VarintMember:
    """Encodes a number; `_number_argument` does that for a whole argument at less cost."""

    def __init__(self, name: str) -> None:
        self.tag = _NUMBERS[name]

    def __call__(self, value: int) -> bytes:
        return self.tag + (varint(value) if value >= 0 else _negative(value))


@lru_cache(4096)
def _negative(value: int) -> bytes:
    """Return a negative number as a varint: ten bytes, and most are one of few error codes."""
    return varint(value & _MASK64)


def _text_member(name: str) -> Encode:
    field_tag = _LENGTHS[name]
    return lambda value: text(field_tag, value) or field_tag + b"\0"


def _message_member(name: str, body: Encode) -> Encode:
    field_tag = _LENGTHS[name]
    return lambda value: message(field_tag, body(value))


def _capability_set(name: str) -> Encode:
    field_tag = _LENGTHS[name]
    return lambda value: message(field_tag, b"%016x" % (value & _MASK64))


def _buffer(value: bytes | v.TruncatedBytes | v.BufferFault) -> bytes:
    if isinstance(value, bytes):
        return message(_LENGTHS["bytes_arg"], value)
    if isinstance(value, v.BufferFault):
        return message(_LENGTHS["bytes_arg"], _FAULTS.get(value.code, b"CharBufErrorUnknown"))
    body = message(_ONE, value.data) if value.data else b""
    return message(_LENGTHS["truncated_bytes_arg"], body + number(_COUNT, value.original_size))


def _buffer_of_tracepoint(value: bytes | v.TruncatedBytes | v.BufferFault) -> bytes:
    return _buffer(value.data if isinstance(value, v.TruncatedBytes) else value)


def unreadable(value: v.Unreadable) -> bytes:
    """Return the error_arg of an argument whose memory could not be read."""
    if value.depth < 0:
        reason = b"Bad address for basic type"
    else:
        reason = b"Bad address encountered during resolve dereference at depth %d" % value.depth
    return message(_LENGTHS["error_arg"], message(_ONE, reason))


def _shared() -> dict[str, Encode]:
    """The types whose form is the same for every kind of event."""
    int_arg, uint_arg = _VarintMember("int_arg"), _VarintMember("uint_arg")
    size_arg, string_arg = _VarintMember("size_arg"), _text_member("string_arg")
    file_arg, path_arg = (_message_member(name, _file) for name in ("file_arg", "path_arg"))
    forms: dict[str, Encode] = {
        **dict.fromkeys(("int", "int8", "int16", "int32"), int_arg),
        **dict.fromkeys(("uint8", "uint16", "uint32"), uint_arg),
        "int64": _VarintMember("long_arg"),
        **dict.fromkeys(("uint64", "size_t", "sock_age"), size_arg),
        **dict.fromkeys(("sock_sent", "sock_received", "sock_used", "udp_size"), size_arg),
        **dict.fromkeys(("string", "filename", "data_loc", "net_device"), string_arg),
        **dict.fromkeys(("file", "fd", "kiocb"), file_arg),
        **dict.fromkeys(("path", "dentry"), path_arg),
        "capability": _message_member("capability_arg", _capability),
        "bpf_cmd": _VarintMember("bpf_cmd_arg"),
        "linux_binprm": _message_member("linux_binprm_arg", _binprm),
        "sockaddr": _message_member("sockaddr_arg", _sockaddr),
        "sockaddr_un": _message_member("sockaddrun_arg", _sockaddr_un),
        "cred": _message_member("process_credentials_arg", _cred),
        "user_namespace": _message_member("user_ns_arg", _user_namespace),
        "bpf_attr": _message_member("bpf_attr_arg", _bpf_program),
        "bpf_prog": _message_member("bpf_prog_arg", _bpf_program),
        "bpf_map": _message_member("bpf_map_arg", _bpf_map),
        "perf_event": _message_member("perf_event_arg", _perf_event),
        **dict.fromkeys(("module", "load_info"), _message_member("module_arg", _module)),
    }
    for name in ("kernel_cap_t", "cap_inheritable", "cap_permitted", "cap_effective"):
        forms[name] = _capability_set(f"{name}_arg")
    return forms


_SHARED = _shared()
_BUFFERS = ("char_buf", "char_iovec", "iov_iter", "skb_payload")

_OF_FUNCTIONS: dict[str, Encode] = {
    **_SHARED,
    **dict.fromkeys(_BUFFERS, _buffer),
    **dict.fromkeys(
        ("sock", "socket", "fd_sock"), _message_member("sock_arg", _sock_with(names.family))
    ),
    "skb": _message_member("skb_arg", _skb_with(names.family)),
    "syscall64": _VarintMember("long_arg"),
}
# Quirks of Tetragon: no sign of a cut buffer, and no name of a rarer address family.
_OF_TRACEPOINTS: dict[str, Encode] = {
    **_SHARED,
    **dict.fromkeys(_BUFFERS, _buffer_of_tracepoint),
    **dict.fromkeys(
        ("sock", "socket", "fd_sock"), _message_member("sock_arg", _sock_with(names.known_family))
    ),
    "skb": _message_member("skb_arg", _skb_with(names.known_family)),
}
_UNLABELLED = frozenset({"sockaddr", "sockaddr_un"})  # as in Tetragon

TYPES = frozenset(_OF_FUNCTIONS) | {"const_buf"}


def _nothing(_value: object) -> bytes:
    return b""


def encoder(field_tag: bytes, kind: str, label: str = "") -> Encode:
    """Return the function that encodes values of type ``kind`` as field ``field_tag``."""
    if kind == "nop":
        return _nothing
    return _argument(field_tag, _OF_FUNCTIONS[kind], "" if kind in _UNLABELLED else label)


def tracepoint_encoder(field_tag: bytes, kind: str, syscall_id: Encode) -> Encode:
    """Return the same for an argument of a tracepoint, which has no label there."""
    if kind == "nop":
        return _nothing
    if kind == "const_buf":
        return _array(_argument(field_tag, _OF_TRACEPOINTS["uint64"], ""))
    if kind == "syscall64":
        return _argument(field_tag, _message_member("syscall_id", syscall_id), "")
    return _argument(field_tag, _OF_TRACEPOINTS[kind], "")


def _array(one: Encode) -> Encode:
    def encode(elements: Any) -> bytes:
        if elements.__class__ in (v.Unreadable, v.Absent):
            return one(elements)
        return b"".join(map(one, elements))

    return encode


def _argument(field_tag: bytes, form: Encode, label: str) -> Encode:
    tail = text(_LABEL, label.encode())
    if isinstance(form, _VarintMember):
        return _number_argument(field_tag, form, tail)

    def encode(value: Any) -> bytes:
        if value.__class__ in _WITHOUT_VALUE:
            return _argument_without_value(field_tag, value, tail)
        body = form(value) + tail
        return field_tag + varint(len(body)) + body

    return encode


_WITHOUT_VALUE = frozenset({v.Absent, v.Unreadable})


def _argument_without_value(field_tag: bytes, value: Any, tail: bytes) -> bytes:
    if value.__class__ is v.Absent:
        return b""
    return message(field_tag, unreadable(value) + tail)


def _number_argument(field_tag: bytes, form: _VarintMember, tail: bytes) -> Encode:
    # What comes before a number, by the number's length.
    heads = [field_tag + varint(len(form.tag) + n + len(tail)) + form.tag for n in range(11)]

    def encode(value: Any) -> bytes:
        if value.__class__ in _WITHOUT_VALUE:
            return _argument_without_value(field_tag, value, tail)
        raw = varint(value) if value >= 0 else _negative(value)
        return heads[len(raw)] + raw + tail

    return encode
