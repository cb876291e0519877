"""The process table: images of living processes, and those that later events may still name.

Records go in, a `Process` with its parent comes out. Nothing here knows kernel or protobuf bytes.

An entry is counted as Tetragon counts it: it starts with one reference and has one more for each
live child image (and, with ancestors enabled, each further live descendant). An exec releases the
image it replaces, an exit the image that ended; each release returns the references that image
held. An entry without references stays for a grace time, for late events, and is then removed;
in a storm of short-lived processes it is removed earlier. A fork that is followed by an exec is
named after that exec by the return of its execve only, so of those few stay. The ring keeps records
in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from collector.processes.pods import HostUnit, Pod
from collector.records.layouts import Credentials, Namespaces
from collector.records.process import FLAG_EXECVE, FLAG_IN_INIT_TREE

Key = tuple[int, int]  # (pid, ktime_ns)

_EVICT_AMONG = 64  # as many as the smallest table has
_REPLACED_MAX = 256  # forks that exec'd: more than execve calls that have not returned yet

KERNEL_KEY: Key = (0, 1)  # the synthetic parent of pids 1 and 2


class ContainerInfo(NamedTuple):
    """A container as its engine names it: the fields of tetra.v1.ContainerInfo, and its pod."""

    id: str
    name: str  # empty for the sandbox of a pod
    image: str
    runtime: str
    pod: Pod | None = None


@dataclass(slots=True, eq=False, weakref_slot=True)
class Image:
    """The facts of an exec, shared by all forks that have not exec'd. Compared by identity."""

    binary: str
    arguments: str = ""
    cwd: str = ""
    uid: int = 0
    auid: int = 0xFFFFFFFF
    docker: str = ""
    container: ContainerInfo | None = None
    unit: HostUnit | None = None  # of systemd, outside containers
    user: str = ""  # name of uid in the host's user database; empty for containers
    show_user: bool = False  # also as `user`, which only --username-metadata=unix fills
    argv: tuple[bytes, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    namespaces: Namespaces | None = None
    credentials: Credentials | None = None
    arg_start: int = 0  # address of the arguments: with the pid it identifies an image in /proc
    saved: bytes = b""  # serialized by an earlier collector, in place of the fields above


@dataclass(slots=True)
class Process:
    """One process image: an exec, or a fork that has not exec'd."""

    pid: int
    ktime_ns: int  # when the image started, boot clock
    parent: Key
    flags: int
    start_time_ns: int  # calendar clock, kept as first computed
    in_init_tree: bool
    image: Image
    start_boottime_ns: int = 0  # of the process, not of the image: field 22 of /proc/PID/stat
    nspid: int = 0  # pid in its own pid namespace, where the process is in a container
    is_clone: bool = False
    references: int = 1
    ended: bool = False
    key: Key = field(init=False)  # the identity of the image: (pid, ktime_ns)

    def __post_init__(self) -> None:
        self.key = (self.pid, self.ktime_ns)


def _keep_nothing(_key: Key) -> None:
    """Ignore a removed entry."""


@dataclass(slots=True)
class TableStatistics:
    """Counters of the table; `evictions` counts entries that were still needed."""

    evictions: int = 0
    misses: int = 0


@dataclass(slots=True)
class ProcessTable:
    """All images by key, at most ``capacity`` of them."""

    capacity: int = 65536
    grace_s: float = 30.0
    released_max: int = 16384  # entries kept without references
    with_ancestors: bool = False
    removed: Callable[[Key], None] = _keep_nothing  # called for each entry that is removed
    statistics: TableStatistics = field(default_factory=TableStatistics)
    _table: dict[Key, Process] = field(default_factory=dict)
    _alive: dict[int, Key] = field(default_factory=dict)  # the image each living pid runs now
    _released: deque[tuple[float, Process]] = field(default_factory=deque)
    _replaced: deque[tuple[float, Process]] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Process]:
        return iter(self._table.values())

    def get(self, key: Key) -> Process | None:
        """Return the image with this key, or None."""
        return self._table.get(key)

    def living(self, pid: int) -> Process | None:
        """Return the current image of ``pid``, or None."""
        key = self._alive.get(pid)
        return None if key is None else self._table.get(key)

    def all_living(self) -> list[Process]:
        """Return the image of each living process, oldest first."""
        return [self._table[key] for key in self._alive.values() if key in self._table]

    def add(self, process: Process, now_s: float) -> None:
        """Enter a process found outside the event stream (/proc, saved state).

        It takes no references yet: see `adopt`.
        """
        self._insert(process, now_s)

    def restore(self, processes: Iterable[Process], now_s: float) -> None:
        """Enter a saved table. Ended processes in it stay for as long as others refer to them."""
        entered = list(processes)
        for process in entered:
            process.references = 0 if process.ended else 1
            self._insert(process, now_s)
        for process in entered:
            if not process.ended:
                self.adopt(process)
        for process in entered:
            if process.references == 0:
                self._released.append((now_s, process))

    def adopt(self, process: Process) -> None:
        """Take the references that ``process`` holds on its parent and ancestors."""
        self._hold_family(process)

    def fork(self, child: Process, now_s: float) -> None:
        """Enter a forked child; it holds its parent until the child's image ends."""
        self._insert(child, now_s)
        self._hold_parent(child)

    def exec(self, process: Process, replaced_ktime_ns: int, now_s: float) -> None:
        """Enter a new image and release the one that it replaces."""
        self._insert(process, now_s)
        self._hold_family(process)
        if replaced_ktime_ns and replaced_ktime_ns != process.ktime_ns:
            replaced = self._table.get((process.pid, replaced_ktime_ns))
            if replaced is None:
                return
            if replaced.is_clone and replaced.references == 1 and not replaced.ended:
                # Nothing else refers to it and no exit will name it.
                replaced.ended = True
                replaced.references = 0
                self._release_family(replaced, now_s)
                self._keep(self._replaced, replaced, now_s)
                if len(self._replaced) > _REPLACED_MAX:
                    self._drop_oldest(self._replaced)
            else:
                self._end(replaced, now_s)

    def exit(self, key: Key, now_s: float) -> Process | None:
        """Release the image that ended and return it; None if it is unknown."""
        process = self._table.get(key)
        if self._alive.get(key[0]) == key:
            del self._alive[key[0]]
        if process is None:
            self.statistics.misses += 1
            return None
        self._end(process, now_s)
        return process

    def parent_of(self, process: Process) -> Process | None:
        """Return the parent image; that of `<kernel>` is itself."""
        return self._table.get(process.parent)

    def ancestors_of(self, process: Process) -> list[Process]:
        """Return the grandparent and on, nearest first, up to and with pid 1 or 2.

        A loop of parents, which only a damaged saved table can hold, ends the walk.
        """
        found: list[Process] = []
        if process.pid <= 2:
            return found
        current = self._table.get(process.parent)
        seen = {process.key}
        while current is not None and current.pid > 2:
            seen.add(current.key)
            current = self._table.get(current.parent)
            if current is None or current.pid == 0 or current.key in seen:
                break
            found.append(current)
        return found

    def reported_ancestors(self, process: Process) -> list[Process]:
        """Return `ancestors_of` where ancestors are enabled, else nothing."""
        return self.ancestors_of(process) if self.with_ancestors else []

    def collect(self, now_s: float) -> None:
        """Remove entries that have had no references for the grace time."""
        for ended in (self._replaced, self._released):
            while ended and ended[0][0] <= now_s - self.grace_s:
                self._drop_oldest(ended)

    def _insert(self, process: Process, now_s: float) -> None:
        self._table[process.key] = process
        if not process.ended:
            self._alive[process.pid] = process.key
        while len(self._table) > self.capacity:
            # Before its grace time ends, but without references.
            if ended := self._replaced or self._released:
                self._drop_oldest(ended)
            else:
                self._evict(now_s)

    def _evict(self, now_s: float) -> None:
        """Drop an entry that is still needed: its later events will lack details.

        It is the first without children among the oldest few, since most processes descend from the
        oldest.
        """
        among = [p for p in islice(self._table.values(), _EVICT_AMONG) if p.pid]
        process = next((p for p in among[:-1] if p.references <= 1), among[0])
        self._remove(process.key)
        self.statistics.evictions += 1
        if not process.ended:
            self._release_family(process, now_s)
        process.ended = True

    def _drop_oldest(self, ended: deque[tuple[float, Process]]) -> None:
        _, process = ended.popleft()
        if process.references <= 0 and self._table.get(process.key) is process:
            self._remove(process.key)

    def _remove(self, key: Key) -> None:
        del self._table[key]
        self.removed(key)

    def _end(self, process: Process, now_s: float) -> None:
        if process.ended:
            return
        process.ended = True
        self._release_family(process, now_s)
        self._release(process, now_s)

    def _hold_family(self, process: Process) -> None:
        # A fork holds its parent only, yet its end gives back ancestors too, in Tetragon: so
        # ancestors are counted for images that took them.
        if self.with_ancestors and not process.is_clone:
            for ancestor in self.ancestors_of(process):
                ancestor.references += 1
        self._hold_parent(process)

    def _hold_parent(self, process: Process) -> None:
        parent = self._table.get(process.parent)
        if parent is not None and parent is not process:
            parent.references += 1

    def _release_family(self, process: Process, now_s: float) -> None:
        if self.with_ancestors and not process.is_clone:
            for ancestor in self.ancestors_of(process):
                self._release(ancestor, now_s)
        parent = self._table.get(process.parent)
        if parent is not None and parent is not process:
            self._release(parent, now_s)

    def _release(self, process: Process, now_s: float) -> None:
        process.references -= 1
        if process.references == 0:
            self._keep(self._released, process, now_s)

    def _keep(self, ended: deque[tuple[float, Process]], process: Process, now_s: float) -> None:
        ended.append((now_s, process))
        if len(self._released) + len(self._replaced) > self.released_max:
            self._drop_oldest(self._released or self._replaced)


def forked_from(
    parent: Process,
    *,
    pid: int,
    ktime_ns: int,
    flags: int,
    start_time_ns: int,
    start_boottime_ns: int,
    nspid: int = 0,
) -> Process:
    """Return a child that runs ``parent``'s image and has not exec'd yet.

    Its flags print as ``execve``: the kernel map's mark of a clone is that bit, in Tetragon.
    """
    in_init_tree = bool(flags & FLAG_IN_INIT_TREE)
    image = parent.image
    return Process(  # by position: a call with this many names costs twice as much
        pid,
        ktime_ns,
        parent.key,
        FLAG_EXECVE | (FLAG_IN_INIT_TREE if in_init_tree else 0),
        start_time_ns,
        in_init_tree,
        image,
        start_boottime_ns,
        nspid if image.docker else 0,
        True,  # is_clone
    )
