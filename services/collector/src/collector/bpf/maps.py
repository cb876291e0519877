"""BPF maps: created, looked up, updated, pinned, mapped into memory.

A `BpfMap` owns one file descriptor; the map lives for as long as something holds it: a descriptor,
a program that uses it, or a name in a BPF file system (`pin`).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import cache
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from collector.bpf.syscall import Command, address_of, bpf
from collector.errors import ProbeError

_NOEXIST = 1  # BPF_NOEXIST
_ENOTSUPP = 524  # the kernel's own, include/linux/errno.h: this type has no batch operations
_CREATE = Struct("<IIIIIII16s4x")  # union bpf_attr, BPF_MAP_CREATE: up to map_name
_INFO = Struct("<IIIIII16s")  # struct bpf_map_info: type, id, sizes, entries, flags, name
_BATCH = 256  # entries that one call of `items` asks for
_BTF = Path("/sys/kernel/btf/vmlinux")
_NAME_MAX = 15  # BPF_OBJ_NAME_LEN without the NUL

MMAPABLE = 1 << 10  # BPF_F_MMAPABLE: an array that user space can map
NO_PREALLOC = 1 << 0  # BPF_F_NO_PREALLOC: required for LPM tries


class MapType(IntEnum):
    """``enum bpf_map_type``."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    CGROUP_ARRAY = 8
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    RINGBUF = 27
    INODE_STORAGE = 28
    TASK_STORAGE = 29


_PER_CPU = frozenset({MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH})


class MapSpec(NamedTuple):
    """What a map is created from. ``programs``: names that fill a program array from slot 0 on."""

    name: str
    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    programs: tuple[str, ...] = ()


class MapInfo(NamedTuple):
    """The kernel's description of a map: ``struct bpf_map_info``."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


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


def raise_memlock_limit() -> None:
    """Raise RLIMIT_MEMLOCK, to which kernels before 5.11 charge maps and programs.

    "bpf: Eliminate rlimit-based memory accounting for bpf progs" (v5.11) and its series. Without
    CAP_SYS_RESOURCE the limit rises only to what the container's engine allows.
    """
    for limit in (
        (resource.RLIM_INFINITY,) * 2,
        (resource.getrlimit(resource.RLIMIT_MEMLOCK)[1],) * 2,
    ):
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, limit)
        except (OSError, ValueError):
            continue
        return


def create(spec: MapSpec) -> BpfMap:
    """Return a new map; raise `ProbeError` with the likely cause."""
    attr = _CREATE.pack(
        spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags, 0, 0,
        spec.name.encode()[:_NAME_MAX],
    )  # fmt: skip
    try:
        fd = bpf(Command.MAP_CREATE, attr)
    except OSError as error:
        hint = ""
        if error.errno == errno.EPERM:
            hint = ": CAP_BPF is missing, or before Linux 5.11 RLIMIT_MEMLOCK is too low"
        raise ProbeError(
            f"create map: {spec.name}: {spec.type.name.lower()}, key {spec.key_size} bytes, value "
            f"{spec.value_size} bytes, {spec.max_entries} entries: {error.strerror}{hint}"
        ) from None
    return BpfMap(
        fd, spec.key_size, spec.value_size, per_cpu=spec.type in _PER_CPU, entries=spec.max_entries
    )


def info(fd: int) -> MapInfo:
    """Return the kernel's description of the map behind ``fd``; raise `OSError`."""
    buffer = ctypes.create_string_buffer(_INFO.size)
    bpf(Command.OBJ_GET_INFO_BY_FD, Struct("<IIQ").pack(fd, _INFO.size, address_of(buffer)))
    kind, number, key_size, value_size, entries, flags, name = _INFO.unpack(buffer.raw)
    text = name.rstrip(b"\0").decode(errors="replace")
    return MapInfo(kind, number, key_size, value_size, entries, flags, text)


def pin(fd: int, path: Path) -> None:
    """Name a map, program or link in a BPF file system; it lives for as long as it has a name."""
    try:
        bpf(Command.OBJ_PIN, _PinAttr(os.fsencode(path), fd, 0))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def open_pinned(path: Path) -> int:
    """Return a file descriptor of the map, program or link at ``path``."""
    try:
        return bpf(Command.OBJ_GET, _PinAttr(os.fsencode(path), 0, 0))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@cache
def programs_may_allocate() -> bool:
    """Return whether entries of hashes with NO_PREALLOC can be made by programs of every kind.

    Before "bpf: Convert hash map to bpf_mem_alloc" (v6.1) a tracing program could wait for a lock
    of the allocator that it had interrupted.
    """
    try:
        with _BTF.open("rb") as file:
            # struct btf_header: its length, then at 16 where the names are behind it.
            head = file.read(24)
            file.seek(int.from_bytes(head[4:8], "little") + int.from_bytes(head[16:20], "little"))
            return b"\0bpf_mem_alloc\0" in file.read()
    except OSError:
        return False


def possible_cpus() -> int:
    """Return the number of CPUs that per-CPU values have room for."""
    with open("/sys/devices/system/cpu/possible") as file:
        return int(file.read().strip().replace(",", "-").rsplit("-", 1)[-1]) + 1


class BpfMap:
    """Owns one map's file descriptor. Keys and values are bytes of the map's own sizes."""

    def __init__(
        self, fd: int, key_size: int, value_size: int, *, per_cpu: bool = False, entries: int = 0
    ) -> None:
        self.fd = fd
        self.key_size = key_size
        # Per-CPU values are padded to eight bytes each.
        size = (value_size + 7) // 8 * 8 * possible_cpus() if per_cpu else value_size
        self.value_size = size
        self.entries = entries
        self._key = ctypes.create_string_buffer(key_size)
        self._value = ctypes.create_string_buffer(size)

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value (of all CPUs, one after the other), or None."""
        return self._value.raw if self._call(Command.MAP_LOOKUP_ELEM, key, errno.ENOENT) else None

    def insert(self, key: bytes, value: bytes) -> bool:
        """Enter ``key`` unless it exists; return whether it was entered. Raise OSError if full."""
        self._value.raw = value
        return self._call(Command.MAP_UPDATE_ELEM, key, errno.EEXIST, _NOEXIST)

    def update(self, key: bytes, value: bytes) -> None:
        """Enter or replace ``key``; raise `OSError` if the map is full."""
        self._value.raw = value
        self._call(Command.MAP_UPDATE_ELEM, key, 0)

    def update_batch(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Enter or replace many keys with one call where the map's type has it; raise `OSError`.

        LPM tries have no batch operations before v5.16 and program arrays never: one by one there.
        """
        if not items:
            return
        keys = ctypes.create_string_buffer(b"".join(key for key, _ in items))
        values = ctypes.create_string_buffer(b"".join(value for _, value in items))
        attr = Struct("<QQQQIIQQ").pack(  # union bpf_attr, batch
            0, 0, address_of(keys), address_of(values), len(items), self.fd, 0, 0
        )
        try:
            bpf(Command.MAP_UPDATE_BATCH, attr)
        except OSError as error:
            if error.errno not in (_ENOTSUPP, errno.EINVAL, errno.EOPNOTSUPP):
                raise
            for key, value in items:
                self.update(key, value)

    def delete(self, key: bytes) -> bool:
        """Delete ``key``; return whether it was there."""
        return self._call(Command.MAP_DELETE_ELEM, key, errno.ENOENT)

    def keys(self) -> Iterator[bytes]:
        """Yield the keys. An entry that is deleted meanwhile restarts the walk: see the kernel."""
        key = None
        following = ctypes.create_string_buffer(self.key_size)
        while True:
            buffer = ctypes.create_string_buffer(key, self.key_size) if key is not None else None
            attr = _Attr(self.fd, 0, address_of(buffer), ctypes.addressof(following), 0)
            try:
                bpf(Command.MAP_GET_NEXT_KEY, attr)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            key = following.raw
            yield key

    def items(self) -> list[tuple[bytes, bytes]]:
        """Return the entries of a hash, each once even while others change it; raise `OSError`.

        Walks by buckets: "bpf: Add generic support for lookup batch op", v5.6.
        """
        found: list[tuple[bytes, bytes]] = []
        room, at, last = _BATCH, None, ctypes.create_string_buffer(max(4, self.key_size))
        while True:
            keys = ctypes.create_string_buffer(room * self.key_size)
            values = ctypes.create_string_buffer(room * self.value_size)
            attr = bytearray(
                Struct("<QQQQIIQQ").pack(  # union bpf_attr, batch
                    address_of(at), address_of(last), address_of(keys), address_of(values), room,
                    self.fd, 0, 0,
                )
            )  # fmt: skip
            ended = False
            try:
                bpf(Command.MAP_LOOKUP_BATCH, attr)
            except OSError as error:
                if error.errno == errno.ENOSPC:  # a bucket has more entries than that
                    room *= 2
                    continue
                if error.errno != errno.ENOENT:
                    raise
                ended = True
            (count,) = Struct("<I").unpack_from(attr, 32)
            key, value = self.key_size, self.value_size
            found += [
                (keys.raw[n * key : (n + 1) * key], values.raw[n * value : (n + 1) * value])
                for n in range(count)
            ]
            if ended:
                return found
            at = ctypes.create_string_buffer(last.raw, len(last))

    def mapped(self) -> mmap.mmap:
        """Return the values of an array made with MMAPABLE as shared memory; raise `OSError`."""
        size = self.entries * ((self.value_size + 7) // 8 * 8)
        page = mmap.PAGESIZE
        return mmap.mmap(self.fd, (size + page - 1) // page * page)

    def _call(self, command: Command, key: bytes, no: int, flags: int = 0) -> bool:
        self._key.raw = key
        # The kernel refuses fields that a command does not know: a delete has no value.
        value = 0 if command is Command.MAP_DELETE_ELEM else ctypes.addressof(self._value)
        attr = _Attr(self.fd, 0, ctypes.addressof(self._key), value, flags)
        try:
            bpf(command, attr)
        except OSError as error:
            if error.errno == no:
                return False
            raise OSError(error.errno, f"bpf map: {error.strerror}") from None
        return True

    def close(self) -> None:
        """Close the file descriptor; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
