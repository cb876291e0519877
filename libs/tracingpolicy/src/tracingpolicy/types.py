"""The argument types of policies, as tables: names, numbers, families, filters.

The numbers are those of Tetragon's error texts; documentation and coverage are made from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class Family(Enum):
    """What a type's filters compare."""

    NUMBER = "number"
    CAPABILITIES = "capability set"
    TEXT = "text"
    PATH = "path"
    SOCKET = "socket"
    ADDRESS = "socket address"
    UNIX_ADDRESS = "unix socket address"
    OTHER = "object"  # reported, never filtered
    NONE = "nothing"  # nop and auto


class ArgumentType(Enum):
    """A type under its first name; `named` also finds the aliases."""

    INT = "int"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    SIZE_T = "size_t"
    SYSCALL64 = "syscall64"
    CAPABILITY = "capability"
    BPF_CMD = "bpf_cmd"
    KERNEL_CAP_T = "kernel_cap_t"
    CAP_INHERITABLE = "cap_inheritable"
    CAP_PERMITTED = "cap_permitted"
    CAP_EFFECTIVE = "cap_effective"
    STRING = "string"
    FILENAME = "filename"
    DATA_LOC = "data_loc"
    NET_DEVICE = "net_device"
    CHAR_BUF = "char_buf"
    CHAR_IOVEC = "char_iovec"
    IOV_ITER = "iov_iter"
    CONST_BUF = "const_buf"
    FD = "fd"
    FILE = "file"
    KIOCB = "kiocb"
    PATH = "path"
    DENTRY = "dentry"
    LINUX_BINPRM = "linux_binprm"
    SOCK = "sock"
    SOCKET = "socket"
    SKB = "skb"
    FD_SOCK = "fd_sock"
    SOCK_AGE = "sock_age"
    SOCK_SENT = "sock_sent"
    SOCK_RECEIVED = "sock_received"
    SOCK_USED = "sock_used"
    UDP_SIZE = "udp_size"
    SKB_PAYLOAD = "skb_payload"
    SOCKADDR = "sockaddr"
    SOCKADDR_UN = "sockaddr_un"
    CRED = "cred"
    USER_NAMESPACE = "user_namespace"
    BPF_ATTR = "bpf_attr"
    BPF_PROG = "bpf_prog"
    BPF_MAP = "bpf_map"
    PERF_EVENT = "perf_event"
    LOAD_INFO = "load_info"
    MODULE = "module"
    NOP = "nop"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """What is the same for every argument of one type."""

    number: int | None  # in Tetragon's error texts; None where it has none
    family: Family
    what: str  # what is reported
    aliases: tuple[str, ...] = ()
    bits: int = 0  # width of a NUMBER or CAPABILITIES
    signed: bool = False


def _number(number: int | None, bits: int, signed: bool, what: str, *aliases: str) -> TypeInfo:
    return TypeInfo(number, Family.NUMBER, what, aliases, bits, signed)


_T = ArgumentType
_INT, _UINT, _LONG, _SIZE = "int_arg", "uint_arg", "long_arg", "size_arg"
_CAPS = "16 hexadecimal digits"

TYPES: Mapping[ArgumentType, TypeInfo] = MappingProxyType(
    {
        _T.INT: _number(1, 32, True, _INT),
        _T.INT8: _number(31, 8, True, _INT, "sint8"),
        _T.INT16: _number(29, 16, True, _INT, "sint16"),
        _T.INT32: _number(12, 32, True, _INT, "sint32"),
        _T.INT64: _number(10, 64, True, _LONG, "sint64", "long"),
        _T.UINT8: _number(32, 8, False, _UINT),
        _T.UINT16: _number(30, 16, False, _UINT),
        _T.UINT32: _number(13, 32, False, _UINT),
        _T.UINT64: _number(11, 64, False, _SIZE, "ulong"),
        _T.SIZE_T: _number(4, 64, False, _SIZE),
        _T.SYSCALL64: _number(28, 64, False, "syscall_id: number and ABI"),
        _T.CAPABILITY: _number(23, 32, True, "capability_arg: number and name"),
        _T.BPF_CMD: _number(None, 32, True, "bpf_cmd_arg: the command's name"),
        _T.KERNEL_CAP_T: TypeInfo(33, Family.CAPABILITIES, f"kernel_cap_t_arg: {_CAPS}", bits=64),
        _T.CAP_INHERITABLE: TypeInfo(
            34, Family.CAPABILITIES, f"cap_inheritable_arg: {_CAPS}", bits=64
        ),
        _T.CAP_PERMITTED: TypeInfo(35, Family.CAPABILITIES, f"cap_permitted_arg: {_CAPS}", bits=64),
        _T.CAP_EFFECTIVE: TypeInfo(36, Family.CAPABILITIES, f"cap_effective_arg: {_CAPS}", bits=64),
        _T.STRING: TypeInfo(6, Family.TEXT, "string_arg"),
        _T.FILENAME: TypeInfo(14, Family.TEXT, "string_arg: the name in struct filename"),
        _T.DATA_LOC: TypeInfo(38, Family.TEXT, "string_arg: a tracepoint's __data_loc field"),
        _T.NET_DEVICE: TypeInfo(39, Family.TEXT, "string_arg: the interface's name"),
        _T.CHAR_BUF: TypeInfo(2, Family.TEXT, "bytes_arg or truncated_bytes_arg"),
        _T.CHAR_IOVEC: TypeInfo(3, Family.OTHER, "bytes_arg: the entries joined"),
        _T.IOV_ITER: TypeInfo(25, Family.OTHER, "bytes_arg or truncated_bytes_arg"),
        _T.CONST_BUF: TypeInfo(18, Family.OTHER, "size_arg for each element of the field"),
        _T.FD: TypeInfo(17, Family.PATH, "file_arg: path, flags, permission"),
        _T.FILE: TypeInfo(16, Family.PATH, "file_arg: path, flags, permission"),
        _T.KIOCB: TypeInfo(24, Family.PATH, "file_arg: path, flags, permission"),
        _T.PATH: TypeInfo(15, Family.PATH, "path_arg: path, flags, permission"),
        _T.DENTRY: TypeInfo(42, Family.PATH, "path_arg: path inside its mount"),
        _T.LINUX_BINPRM: TypeInfo(37, Family.PATH, "linux_binprm_arg: path, flags, permission"),
        _T.SOCK: TypeInfo(7, Family.SOCKET, "sock_arg"),
        _T.SOCKET: TypeInfo(41, Family.SOCKET, "sock_arg"),
        _T.SKB: TypeInfo(5, Family.SOCKET, "skb_arg"),
        _T.FD_SOCK: TypeInfo(46, Family.SOCKET, "sock_arg: the socket of a descriptor"),
        _T.SOCK_AGE: _number(47, 64, False, "size_arg: nanoseconds since TrackSock, 0 without one"),
        _T.SOCK_SENT: _number(51, 64, False, "size_arg: bytes that CountSent added"),
        _T.SOCK_RECEIVED: _number(52, 64, False, "size_arg: bytes that CountReceived added"),
        _T.SOCK_USED: _number(53, 64, False, "size_arg: nanoseconds since the first of them"),
        _T.UDP_SIZE: _number(54, 64, False, "size_arg: bytes behind the packet's UDP header"),
        _T.SKB_PAYLOAD: TypeInfo(
            48, Family.OTHER, "bytes_arg: up to 512 bytes behind the UDP header"
        ),
        _T.SOCKADDR: TypeInfo(40, Family.ADDRESS, "sockaddr_arg: family, address, port"),
        _T.SOCKADDR_UN: TypeInfo(44, Family.UNIX_ADDRESS, "sockaddrun_arg: family, path"),
        _T.CRED: TypeInfo(8, Family.OTHER, "process_credentials_arg"),
        _T.USER_NAMESPACE: TypeInfo(22, Family.OTHER, "user_ns_arg"),
        _T.BPF_ATTR: TypeInfo(19, Family.OTHER, "bpf_attr_arg: program type, length, name"),
        _T.BPF_PROG: TypeInfo(43, Family.OTHER, "bpf_prog_arg: program type, length, name"),
        _T.BPF_MAP: TypeInfo(21, Family.OTHER, "bpf_map_arg: type, sizes, entries, name"),
        _T.PERF_EVENT: TypeInfo(20, Family.OTHER, "perf_event_arg"),
        _T.LOAD_INFO: TypeInfo(26, Family.OTHER, "module_arg: name, signature, taints"),
        _T.MODULE: TypeInfo(27, Family.OTHER, "module_arg: name, taints"),
        _T.NOP: TypeInfo(-1, Family.NONE, "nothing: the argument is absent from the event"),
        _T.AUTO: TypeInfo(None, Family.NONE, "the type of the tracepoint's field"),
    }
)

# Not in Tetragon: a document that has them says so by its API version.
OWN_TYPES = frozenset(
    {_T.FD_SOCK, _T.SOCK_AGE, _T.SKB_PAYLOAD}
    | {_T.SOCK_SENT, _T.SOCK_RECEIVED, _T.SOCK_USED, _T.UDP_SIZE}
)
# Numbers that belong to an object of the kernel, and are asked for by its address.
OF_OBJECTS = frozenset({_T.SOCK_AGE, _T.SOCK_SENT, _T.SOCK_RECEIVED, _T.SOCK_USED, _T.UDP_SIZE})

TYPES_BY_NAME: Mapping[str, ArgumentType] = MappingProxyType(
    {name: kind for kind, info in TYPES.items() for name in (kind.value, *info.aliases)}
)
