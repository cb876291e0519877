"""bpf(2) and perf_event_open(2): numbers, structures' bytes in, file descriptor or error out.

Every other module of this package goes through here. An attribute is a part of ``union bpf_attr``
(include/uapi/linux/bpf.h) packed by the caller; fields behind it are zero for the kernel. Addresses
in it must stay valid until the call returns: keep the buffers in local variables.
"""

from __future__ import annotations

import ctypes
import os
import platform
from enum import IntEnum

_NR_BPF = {"x86_64": 321, "aarch64": 280}
_NR_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_PERF_FLAG_FD_CLOEXEC = 8

_libc = ctypes.CDLL(None, use_errno=True)


class Command(IntEnum):
    """``enum bpf_cmd``: what the collector uses of it."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    BTF_GET_FD_BY_ID = 19
    OBJ_GET_INFO_BY_FD = 15
    RAW_TRACEPOINT_OPEN = 17
    BTF_GET_NEXT_ID = 23
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    LINK_CREATE = 28
    ENABLE_STATS = 32


def bpf(command: Command, attr: bytes | bytearray | ctypes.Structure) -> int:
    """Return what the call returned; raise `OSError`. The kernel may write into ``attr``."""
    if isinstance(attr, ctypes.Structure):
        result = _call(command, ctypes.addressof(attr), ctypes.sizeof(attr))
    else:
        buffer = ctypes.create_string_buffer(bytes(attr), len(attr))
        result = _call(command, ctypes.addressof(buffer), len(attr))
        if isinstance(attr, bytearray):
            attr[:] = buffer.raw
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _call(command: Command, address: int, size: int) -> int:
    number = _NR_BPF[platform.machine()]
    return int(_libc.syscall(number, int(command), ctypes.c_void_p(address), size))


def perf_event_open(attr: bytes, *, pid: int = -1, cpu: int = 0) -> int:
    """Return the file descriptor of a perf event (``struct perf_event_attr``); raise `OSError`."""
    buffer = ctypes.create_string_buffer(attr, len(attr))
    number = _NR_PERF_EVENT_OPEN[platform.machine()]
    fd = int(_libc.syscall(number, buffer, pid, cpu, -1, _PERF_FLAG_FD_CLOEXEC))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


def address_of(buffer: ctypes.Array[ctypes.c_char] | ctypes.Array[ctypes.c_uint64] | None) -> int:
    """Return the address for a pointer field; 0 for None."""
    return 0 if buffer is None else ctypes.addressof(buffer)
