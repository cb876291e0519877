"""Arguments of hooks: a module for each family of types, and the table of readers by type.

A new type is a row of `tracingpolicy.types`, a reader here, and a decoder in `records.tracing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from collector.policies.arguments.base import Reader
from collector.policies.arguments.buffers import ArrayReader, BufferReader
from collector.policies.arguments.files import FileReader
from collector.policies.arguments.numbers import (
    CapabilitiesReader,
    NumberReader,
    ObjectNumberReader,
    SyscallReader,
)
from collector.policies.arguments.objects import ObjectReader
from collector.policies.arguments.sockets import (
    FdSocketReader,
    SocketReader,
    UnixAddressReader,
)
from collector.policies.arguments.texts import TextReader
from tracingpolicy.types import TYPES, ArgumentType, Family

_T = ArgumentType
_BY_FAMILY: dict[Family, Reader] = {
    Family.NUMBER: NumberReader(),
    Family.CAPABILITIES: CapabilitiesReader(),
    Family.TEXT: TextReader(),
    Family.PATH: FileReader(),
    Family.SOCKET: SocketReader(),
    Family.ADDRESS: SocketReader(),
    Family.UNIX_ADDRESS: UnixAddressReader(),
}
_BY_TYPE: dict[ArgumentType, Reader] = {
    _T.CHAR_BUF: BufferReader(),
    _T.CHAR_IOVEC: BufferReader(),
    _T.IOV_ITER: BufferReader(),
    _T.CONST_BUF: ArrayReader(),
    _T.FD_SOCK: FdSocketReader(),
    _T.SOCK_AGE: ObjectNumberReader("sock_age", "owners.h"),
    _T.SOCK_SENT: ObjectNumberReader("sock_sent", "bytes.h"),
    _T.SOCK_RECEIVED: ObjectNumberReader("sock_received", "bytes.h"),
    _T.SOCK_USED: ObjectNumberReader("sock_used", "bytes.h"),
    _T.UDP_SIZE: ObjectNumberReader("udp_size", "bytes.h"),
    _T.SKB_PAYLOAD: ObjectReader("write_skb_payload", "payload.h"),
    _T.SYSCALL64: SyscallReader(),
    _T.CRED: ObjectReader("write_cred", "credentials.h"),
    _T.USER_NAMESPACE: ObjectReader("write_user_namespace", "credentials.h"),
    _T.BPF_ATTR: ObjectReader("write_bpf_attr", "objects.h"),
    _T.BPF_PROG: ObjectReader("write_bpf_prog", "objects.h"),
    _T.BPF_MAP: ObjectReader("write_bpf_map", "objects.h"),
    _T.PERF_EVENT: ObjectReader("write_perf_event", "objects.h"),
    _T.MODULE: ObjectReader("write_module", "modules.h"),
    _T.LOAD_INFO: ObjectReader("write_load_info", "load_info.h"),
}

READERS: Mapping[ArgumentType, Reader] = MappingProxyType(
    {
        kind: _BY_TYPE.get(kind) or _BY_FAMILY[info.family]
        for kind, info in TYPES.items()
        if kind in _BY_TYPE or info.family in _BY_FAMILY
    }
)
