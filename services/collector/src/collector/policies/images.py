"""Lists of binaries, and process facts for filters: the user side of bpf/tracing/images.h.

Each list that a loaded policy names is a bit. `Images` loads the programs that keep the bits when
the first policy needs them, writes the images of processes that ran before, and unloads everything
with the last one. It blocks: not for the event loop.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from collector.bpf import links, maps, programs
from collector.bpf.bytecode import ProgramCode, ProgramPlan, relocate, relocations
from collector.bpf.links import Link
from collector.bpf.maps import BpfMap
from collector.bpf.programs import Kind, Program, ProgramSpec
from collector.bpf.syscall import Command, address_of, bpf
from collector.policies.bits import free_bit
from collector.policies.contents import contents
from collector.policies.maps import (
    BINARIES,
    BINARY_PREFIXES,
    BINARY_SUFFIXES,
    IMAGES,
    POLICIES_MAX,
    image_specs,
)
from collector.policies.numbers import Number, bind
from tracingpolicy.operators import Operator

LISTS_MAX = 64
PATH_MAX = 255
SUFFIX_MAX = 127
# Functions of images.h, by the tracepoint that runs them.
PROGRAMS: Mapping[str, str] = {
    "sched_process_fork": "on_image_fork",
    "sched_process_exec": "on_image_exec",
    "sched_process_exit": "on_image_exit",
}
MARK = "on_image_mark"
FUNCTIONS = (*PROGRAMS.values(), MARK)
_IMAGE = Struct("<4Q3Q10I4I")  # struct image
_PARENT_KNOWN, _STATE_KNOWN, _PATH_KNOWN = 1, 2, 4
_NAMESPACES = (
    "uts", "ipc", "mnt", "pid", "pid_for_children", "net", "time", "time_for_children", "cgroup",
    "user",
)  # fmt: skip
_CAPABILITIES = (b"CapEff", b"CapInh", b"CapPrm")
_U64 = Struct("<Q")
_TEST_RUN = Struct("<IIIIQQIIIIQQ")


class BinaryList(NamedTuple):
    """The values of a matchBinaries, without the negation of its operator."""

    operator: Operator  # IN, PREFIX or POSTFIX
    values: tuple[bytes, ...]

    def holds(self, path: bytes) -> bool:
        """Return whether a path is in the list, as the kernel side finds."""
        if self.operator is Operator.PREFIX:
            return path[:PATH_MAX].startswith(self.values)
        if self.operator is Operator.POSTFIX:
            return path[-SUFFIX_MAX:].endswith(self.values)
        return path[:PATH_MAX] in self.values


class Image(NamedTuple):
    """struct image."""

    binaries: int = 0
    lineage: int = 0
    parent_binaries: int = 0
    parent_lineage: int = 0
    capabilities: tuple[int, ...] = (0, 0, 0)
    namespaces: tuple[int, ...] = (0,) * len(_NAMESPACES)
    parent_pid: int = 0
    nspid: int = 0
    flags: int = 0
    execs: int = 0

    def packed(self) -> bytes:
        """Return the bytes of the map's value."""
        return _IMAGE.pack(
            *self[:4], *self.capabilities, *self.namespaces, *self[6:]
        )  # fmt: skip

    @classmethod
    def unpacked(cls, data: bytes) -> Image:
        """Return the image in a map's value."""
        numbers = _IMAGE.unpack(data)
        parent, nspid, flags, execs = numbers[17:]
        own, lineage, above, lineage_above = numbers[:4]
        return cls(
            own, lineage, above, lineage_above, numbers[4:7], numbers[7:17], parent, nspid, flags,
            execs,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Running:
    """A process as /proc shows it."""

    path: bytes
    parent: int
    image: Image


@dataclass(slots=True)
class Images:
    """Owns the programs and maps of images; they exist while a list or a filter needs them."""

    procfs: Path = Path("/proc")
    maps: dict[str, BpfMap] = field(default_factory=dict)
    _programs: dict[str, Program] = field(default_factory=dict)
    _links: list[Link] = field(default_factory=list)
    _users: int = 0
    _bits: dict[BinaryList, int] = field(default_factory=dict)
    _uses: Counter[BinaryList] = field(default_factory=Counter)
    _written: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    _not_entered: list[BinaryList] = field(default_factory=list)
    _without_images: bool = False  # the processes that run have none yet
    _lock: threading.RLock = field(default_factory=threading.RLock)  # policies come in threads

    def acquire(
        self,
        lists: Sequence[BinaryList],
        codes: Mapping[str, bytes],
        names: Sequence[str],
        shared: Mapping[str, int],
    ) -> tuple[int, ...]:
        """Return the masks of lists, each one bit; raise `ProbeError`.

        `enter_running` comes before a policy is switched on. ``codes`` and ``names`` are the
        policy's functions and maps, in case it is the first.
        """
        with self._lock:
            self._users += 1
            self._uses.update(lists)  # before what can fail: `release` takes them back
            try:
                new = [one for one in dict.fromkeys(lists) if one not in self._bits]
                for one in new:
                    self._bits[one] = free_bit(self._bits.values(), LISTS_MAX, "lists of binaries")
                if self._users == 1:
                    self._start(codes, names, shared)
                    self._without_images = True
                elif new:
                    self._write_lists()
                self._not_entered += new
            except BaseException:
                self.release(lists)
                raise
            return tuple(1 << self._bits[one] for one in lists)

    def enter_running(self) -> None:
        """Give the bits of lists that are new to the processes that run, of all at a time."""
        with self._lock:
            new = [one for one in dict.fromkeys(self._not_entered) if one in self._bits]
            if new or self._without_images:
                mask = sum(1 << self._bits[one] for one in new)
                self._enter_running(mask, first=self._without_images)
            self._not_entered, self._without_images = [], False

    def release(self, lists: Sequence[BinaryList]) -> None:
        """Forget the lists of a policy that is gone."""
        with self._lock:
            self._uses.subtract(lists)
            gone = [one for one in self._bits if self._uses[one] <= 0]
            for one in gone:
                del self._bits[one], self._uses[one]
            self._users -= 1
            if not self._users:
                self.close()
            elif gone:
                self._write_lists()

    def kept(self) -> dict[str, int]:
        """Return the links that must stay for lists of binaries to be compared."""
        return {f"images-{number}": link.fd for number, link in enumerate(self._links)}

    def close(self) -> None:
        """Detach and free everything."""
        for link in self._links:
            link.close()
        for program in self._programs.values():
            program.close()
        for one in self.maps.values():
            one.close()
        self._links, self._programs, self.maps, self._written = [], {}, {}, {}
        self._not_entered, self._without_images = [], False

    # --- the programs

    def _start(
        self, codes: Mapping[str, bytes], names: Sequence[str], shared: Mapping[str, int]
    ) -> None:
        try:
            for spec in image_specs():
                self.maps[spec.name] = maps.create(spec)
            fds = {**shared, **{name: one.fd for name, one in self.maps.items()}}
            numbered = [fds.get(name, 0) for name in names]
            for name in FUNCTIONS:
                plan = ProgramPlan(name, Kind.RAW_TRACEPOINT)
                code = ProgramCode(plan, codes[name], relocations(codes[name], len(numbered)))
                # Losses of scratch space count for the last slot, which policies use last.
                values: dict[int, int] = dict.fromkeys(map(int, Number), 0)
                values[Number.SLOT] = POLICIES_MAX - 1
                bound = bind(relocate(code, numbered), values)
                self._programs[name] = programs.load(ProgramSpec(name, plan.kind, bound))
            self._write_lists()
            for tracepoint, name in PROGRAMS.items():
                self._links.append(links.attach(self._programs[name], tracepoint))
        except BaseException:
            self.close()
            raise

    # --- lists in the kernel's maps

    def _write_lists(self) -> None:
        exact: dict[bytes, int] = {}
        prefixes: dict[bytes, int] = {}
        suffixes: dict[bytes, int] = {}
        tables = {Operator.IN: exact, Operator.PREFIX: prefixes, Operator.POSTFIX: suffixes}
        for one, bit in self._bits.items():
            for value in one.values:
                text = value[::-1] if one.operator is Operator.POSTFIX else value
                table = tables[one.operator]
                table[text] = table.get(text, 0) | 1 << bit
        self._replace(BINARIES, {_padded(k): _U64.pack(v) for k, v in exact.items()})
        self._replace(BINARY_PREFIXES, _trie(prefixes, PATH_MAX + 1))
        self._replace(BINARY_SUFFIXES, _trie(suffixes, SUFFIX_MAX + 1))

    def _replace(self, name: str, wanted: dict[bytes, bytes]) -> None:
        before = self._written.get(name, {})
        for key, value in wanted.items():
            if before.get(key) != value:
                self.maps[name].update(key, value)
        for key in before.keys() - wanted.keys():
            self.maps[name].delete(key)
        self._written[name] = wanted

    # --- processes that ran before

    def _enter_running(self, mask: int, *, first: bool) -> None:
        """Give lists' bits to the processes that are running; ``first``: they have no image yet."""
        running = self._running()
        own = {pid: self._lists_of(one.path) & mask for pid, one in running.items()}
        for pid, one in running.items():
            lineage, above = (_lineage(n, own, running) for n in (pid, one.parent))
            bits = own[pid], lineage, own.get(one.parent, 0), above
            key = pid.to_bytes(4, "little")
            entered = one.image._replace(
                binaries=bits[0], lineage=lineage, parent_binaries=bits[2], parent_lineage=above
            )
            if first and self.maps[IMAGES].insert(key, entered.packed()):
                continue
            value = self.maps[IMAGES].lookup(key)
            execs = Image.unpacked(value).execs if value is not None else 0
            # Executed since the programs are attached: they knew the lists.
            if value is not None and not (first and execs):
                _run(self._programs[MARK], (pid, execs, mask, *bits))

    def _lists_of(self, path: bytes) -> int:
        return sum(1 << bit for one, bit in self._bits.items() if one.holds(path))

    def _running(self) -> dict[int, _Running]:
        found = {}
        for name in os.listdir(self.procfs):
            if name.isdigit():
                one = _read_process(f"{self.procfs}/{name}")
                if one is not None:
                    found[int(name)] = one
        return {
            pid: replace(one, image=one.image._replace(flags=_flags(one, one.parent in found)))
            for pid, one in found.items()
        }


def _flags(one: _Running, parent_known: bool) -> int:
    return _STATE_KNOWN | (_PATH_KNOWN if one.path else 0) | (_PARENT_KNOWN if parent_known else 0)


def _lineage(pid: int, own: Mapping[int, int], running: Mapping[int, _Running]) -> int:
    bits, seen = 0, set()
    while pid in running and pid not in seen:
        seen.add(pid)
        bits |= own[pid]
        pid = running[pid].parent
    return bits


def _read_process(folder: str) -> _Running | None:
    """Return a process, or None if it has ended meanwhile."""
    try:
        status = contents(f"{folder}/status")
    except OSError:
        return None
    nspids = _field(status, b"NSpid").split()
    image = Image(
        capabilities=tuple(int(_field(status, name), 16) for name in _CAPABILITIES),
        namespaces=tuple(_namespace(f"{folder}/ns/{name}") for name in _NAMESPACES),
        parent_pid=int(_field(status, b"PPid")),
        nspid=int(nspids[-1]) if len(nspids) > 1 else 0,
    )
    try:
        path = os.readlink(f"{folder}/exe".encode())
    except OSError:
        path = b""
    return _Running(path, image.parent_pid, image)


def _field(status: bytes, name: bytes) -> bytes:
    """Return a line's value; "0" where this kernel has no such line.

    A name of a process has no newline here: it is escaped (proc_task_name() of fs/proc/array.c).
    """
    start = b"\n%b:\t" % name
    at = status.find(start)
    return status[at + len(start) : status.find(b"\n", at + 1)] if at >= 0 else b"0"


def _namespace(link: str) -> int:
    try:
        return int(os.readlink(link).split("[", 1)[1].rstrip("]"))
    except (OSError, IndexError, ValueError):
        return 0


def _padded(text: bytes) -> bytes:
    return text[:PATH_MAX].ljust(PATH_MAX + 1, b"\0")


def _trie(found: Mapping[bytes, int], size: int) -> dict[bytes, bytes]:
    """Return a trie's entries: the longest match has the bits of all shorter ones too."""
    entries = {}
    for text in found:
        bits = 0
        for length in range(len(text) + 1):
            bits |= found.get(text[:length], 0)
        entries[(8 * len(text)).to_bytes(4, "little") + text.ljust(size, b"\0")] = _U64.pack(bits)
    return entries


def _run(program: Program, arguments: Iterable[int]) -> None:
    """Run a raw tracepoint program once, with these words as its context."""
    words = Struct("<12Q").pack(*[*arguments, *[0] * 12][:12])
    context = ctypes.create_string_buffer(words, len(words))
    attr = _TEST_RUN.pack(
        program.fd, 0, 0, 0, 0, 0, 0, 0, len(words), 0, address_of(context), 0
    )  # fmt: skip
    bpf(Command.PROG_TEST_RUN, attr)
