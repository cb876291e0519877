"""Stack addresses to frames: symbols of the kernel, and of the files that a process has mapped.

Kernel frames without a function symbol and user frames without a mapping are left out, as in
Tetragon. User frames are looked up when their record is handled, so a process that has ended by
then keeps only the frames that the kernel side named by build id.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from collector.events.stacks_elf import ElfSymbols, read_symbols
from collector.events.stacks_kernel import KernelSymbols
from collector.records.values import BuildIdFrame

_PROCESSES_MAX = 256  # whose mappings are remembered
_MAPPINGS_VALID_S = 5.0
_FILES_MAX = 64
_FILES_MAX_BYTES = 64 << 20


class Frame(NamedTuple):
    """A tetragon.StackTraceEntry."""

    address: int  # 0 unless addresses are exposed
    offset: int  # kernel: in the function; user: in the file
    symbol: bytes
    module: bytes = b""
    build_id: bytes = b""


class _Mapping(NamedTuple):
    start: int
    end: int
    offset: int
    file: tuple[bytes, int]  # device and inode: the same file under any path
    path: bytes


class _Mappings(NamedTuple):
    read_s: float
    starts: list[int]
    mappings: list[_Mapping]

    def find(self, address: int) -> _Mapping | None:
        at = bisect_right(self.starts, address) - 1
        if at < 0 or address >= self.mappings[at].end:
            return None
        return self.mappings[at]


class StackResolver:
    """Resolves stacks; remembers kernel symbols, the mappings of processes and symbols of files."""

    def __init__(
        self,
        procfs: Path = Path("/proc"),
        *,
        expose_addresses: bool = False,
        kernel: KernelSymbols | None = None,
    ) -> None:
        self._procfs = procfs
        self._expose = expose_addresses
        self._kernel = kernel or KernelSymbols(procfs / "kallsyms")
        self._processes: OrderedDict[tuple[int, int], _Mappings] = OrderedDict()
        self._files: OrderedDict[tuple[bytes, int], ElfSymbols] = OrderedDict()
        self._paths: dict[bytes, tuple[tuple[bytes, int], bytes]] = {}  # by build id
        self._size_bytes = 0

    def prepare(self) -> None:
        """Read the kernel's symbols ahead of the first stack; it takes some 0.2 s."""
        self._kernel.load()

    def kernel(self, addresses: Iterable[int]) -> list[Frame]:
        """Return the frames of a kernel stack, innermost first."""
        frames = []
        for address in addresses:
            if address and (found := self._kernel.find(address)):
                symbol, offset = found
                frames.append(Frame(address if self._expose else 0, offset, symbol))
        return frames

    def user(self, pid: int, ktime_ns: int, stack: Iterable[int | BuildIdFrame]) -> list[Frame]:
        """Return the frames of a user stack of the image (pid, ktime_ns), innermost first."""
        frames = []
        for entry in stack:
            if isinstance(entry, BuildIdFrame):
                frames.append(self._by_build_id(pid, ktime_ns, entry))
            elif entry and (frame := self._by_address(pid, ktime_ns, entry)):
                frames.append(frame)
        return frames

    def _by_address(self, pid: int, ktime_ns: int, address: int) -> Frame | None:
        mappings = self._mappings(pid, ktime_ns)
        mapping = mappings.find(address) if mappings else None
        if mapping is None:  # mapped since
            mappings = self._mappings(pid, ktime_ns, renew=True)
            mapping = mappings.find(address) if mappings else None
        if mapping is None:
            return None
        offset = address - mapping.start + mapping.offset
        symbols = self._symbols(pid, mapping)
        symbol = symbols.find(offset) if symbols else b""
        build_id = symbols.build_id if symbols else b""
        shown = address if self._expose else 0
        return Frame(shown, offset, symbol, mapping.path, build_id)

    def _by_build_id(self, pid: int, ktime_ns: int, entry: BuildIdFrame) -> Frame:
        if entry.build_id not in self._paths and (mappings := self._mappings(pid, ktime_ns)):
            for mapping in mappings.mappings:
                self._symbols(pid, mapping)
        file, path = self._paths.get(entry.build_id, ((b"", 0), b""))
        symbols = self._files.get(file)
        symbol = symbols.find(entry.offset) if symbols else b""
        shown = entry.address if self._expose else 0
        return Frame(shown, entry.offset, symbol, path, entry.build_id)

    def _mappings(self, pid: int, ktime_ns: int, *, renew: bool = False) -> _Mappings | None:
        key, now_s = (pid, ktime_ns), time.monotonic()
        known = self._processes.get(key)
        if known is not None:
            fresh = now_s - known.read_s < (0.1 if renew else _MAPPINGS_VALID_S)
            if fresh:
                return known
        try:
            data = (self._procfs / str(pid) / "maps").read_bytes()
        except OSError:  # it has ended: the mappings known before are used
            return known
        mappings = _executable(data)
        if not mappings:  # a zombie has none, its stack may still be on the way
            return known
        read = _Mappings(now_s, [m.start for m in mappings], mappings)
        self._processes[key] = read
        self._processes.move_to_end(key)
        if len(self._processes) > _PROCESSES_MAX:
            self._processes.popitem(last=False)
        return read

    def _symbols(self, pid: int, mapping: _Mapping) -> ElfSymbols | None:
        if not mapping.path.startswith(b"/"):
            return None  # [vdso], [heap], code made at run time
        known = self._files.get(mapping.file)
        if known is not None:
            self._files.move_to_end(mapping.file)
            return known
        # The path is one of the process's own mount namespace.
        root = self._procfs / str(pid) / "root"
        symbols = read_symbols(root / mapping.path.decode(errors="surrogateescape").lstrip("/"))
        if symbols is None:
            return None
        self._files[mapping.file] = symbols
        self._size_bytes += symbols.size_bytes
        if symbols.build_id:
            self._paths[symbols.build_id] = (mapping.file, mapping.path)
        while len(self._files) > _FILES_MAX or self._size_bytes > _FILES_MAX_BYTES:
            _, dropped = self._files.popitem(last=False)
            self._size_bytes -= dropped.size_bytes
            self._paths.pop(dropped.build_id, None)
        return symbols


def _executable(maps: bytes) -> list[_Mapping]:
    found = []
    for line in maps.splitlines():
        fields = line.split(None, 5)
        if len(fields) < 5 or b"x" not in fields[1]:
            continue
        start, _, end = fields[0].partition(b"-")
        path = fields[5] if len(fields) > 5 else b""
        file = (fields[3], int(fields[4]))
        found.append(_Mapping(int(start, 16), int(end, 16), int(fields[2], 16), file, path))
    return found
