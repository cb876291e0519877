"""BPF maps and pins by file descriptor: the few operations of bpf(2) that the collector needs.

BCC has them too, but stays in the child that compiles (see probes.py).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from pathlib import Path

_NR_BPF = {"x86_64": 321, "aarch64": 280}
_LOOKUP, _UPDATE, _DELETE, _PIN, _GET = 1, 2, 3, 6, 7  # enum bpf_cmd
_NOEXIST = 1

_libc = ctypes.CDLL(None, use_errno=True)


class _Attr(ctypes.Structure):  # union bpf_attr, the part for map elements
    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class _PinAttr(ctypes.Structure):  # union bpf_attr, the part for BPF_OBJ_PIN and BPF_OBJ_GET
    _fields_ = (
        ("path", ctypes.c_char_p),
        ("fd", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


def _bpf(command: int, attr: ctypes.Structure) -> int:
    """Return what bpf(2) returned, -1 for an error: then `ctypes.get_errno` tells which."""
    number = _NR_BPF[platform.machine()]
    return int(_libc.syscall(number, command, ctypes.byref(attr), ctypes.sizeof(attr)))


def pin(fd: int, path: Path) -> None:
    """Name a map or a link in a BPF file system; it lives for as long as it has a name."""
    if _bpf(_PIN, _PinAttr(os.fsencode(path), fd, 0)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))


def open_pinned(path: Path) -> int:
    """Return a file descriptor of the map or link at ``path``."""
    fd = _bpf(_GET, _PinAttr(os.fsencode(path), 0, 0))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return fd


def _possible_cpus() -> int:
    with open("/sys/devices/system/cpu/possible") as file:
        return int(file.read().strip().replace(",", "-").rsplit("-", 1)[-1]) + 1


class BpfMap:
    """Owns one map's file descriptor. Keys and values are bytes of the map's own sizes."""

    def __init__(self, fd: int, key_size: int, value_size: int, *, per_cpu: bool = False) -> None:
        self.fd = fd
        self._key = ctypes.create_string_buffer(key_size)
        # Per-CPU values are padded to eight bytes each.
        size = (value_size + 7) // 8 * 8 * _possible_cpus() if per_cpu else value_size
        self._value = ctypes.create_string_buffer(size)

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value (of all CPUs, one after the other), or None."""
        return self._value.raw if self._call(_LOOKUP, key, errno.ENOENT) else None

    def insert(self, key: bytes, value: bytes) -> bool:
        """Enter ``key`` unless it is there; tell whether it was entered. Raise OSError if full."""
        self._value.raw = value
        return self._call(_UPDATE, key, errno.EEXIST, _NOEXIST)

    def delete(self, key: bytes) -> bool:
        """Delete ``key``; tell whether it was there."""
        return self._call(_DELETE, key, errno.ENOENT)

    def _call(self, command: int, key: bytes, no: int, flags: int = 0) -> bool:
        self._key.raw = key
        # The kernel refuses fields that a command does not know: a delete has no value.
        value = 0 if command == _DELETE else ctypes.addressof(self._value)
        attr = _Attr(self.fd, 0, ctypes.addressof(self._key), value, flags)
        if _bpf(command, attr) == 0:
            return True
        code = ctypes.get_errno()
        if code == no:
            return False
        raise OSError(code, f"bpf map: {os.strerror(code)}")

    def close(self) -> None:
        """Close the file descriptor."""
        os.close(self.fd)
