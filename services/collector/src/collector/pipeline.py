"""From ring bytes to events: decode, process table, enrich, encode, in the order of the ring."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from struct import Struct

import structlog

from collector.bpf.maps import BpfMap
from collector.errors import DecodeError
from collector.events import process as encoding
from collector.events.process import Encoder
from collector.metadata.enricher import Enricher
from collector.processes.cache import KERNEL_KEY, Image, Process, ProcessCache, forked_from
from collector.processes.procfs import NO_LOGIN_UID, ProcfsProcess, start_and_args
from collector.records import text
from collector.records.process import (
    FLAG_IN_INIT_TREE,
    FLAG_PROCFS,
    Decoder,
    ExecRecord,
    ExitRecord,
    ForkRecord,
)

_KEY = Struct("<I")
_VALUE = Struct("<QQIIQ")  # struct process_value of maps.h

log = structlog.get_logger()


def wall_offset_ns() -> int:
    """Return what to add to the boot clock to get the calendar clock, as of now."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class PipelineStatistics:
    """What passed, and what could not be read."""

    execs: int = 0
    forks: int = 0
    exits: int = 0
    malformed: int = 0
    older: int = 0  # told at start: processes that were there before


@dataclass(slots=True)
class Pipeline:
    """Turns records into events, one after the other; every event goes to ``publish``."""

    cache: ProcessCache
    enricher: Enricher
    encoder: Encoder
    publish: Callable[[bytes], None]
    statistics: PipelineStatistics = field(default_factory=PipelineStatistics)
    _decoder: Decoder = field(default_factory=Decoder)
    _offset_ns: int = 0

    def handle(self, records: Iterable[bytes], offset_ns: int | None = None) -> None:
        """Handle what the ring gave; a malformed record is counted, told and left out.

        ``offset_ns``: the calendar's, as it was when they came; None: as it is now.
        """
        # Once for what came together: the calendar clock may be set at any time.
        self._offset_ns = wall_offset_ns() if offset_ns is None else offset_ns
        now_s = time.monotonic()
        for data in records:
            try:
                record = self._decoder.decode(data)
            except DecodeError as error:
                self.statistics.malformed += 1
                if self.statistics.malformed == 1:
                    log.error("record malformed", error=str(error))
                continue
            if isinstance(record, ExitRecord):
                self._exit(record, now_s)
            elif isinstance(record, ExecRecord):
                self._exec(record, now_s)
            elif record is not None:
                self._fork(record, now_s)

    def _exec(self, record: ExecRecord, now_s: float) -> None:
        self.statistics.execs += 1
        image, flags = self.enricher.from_record(record)
        parent = self._parent(record.parent_pid, record.parent_ktime_ns)
        process = Process(
            pid=record.pid,
            ktime_ns=record.ktime_ns,
            parent=parent.key if parent else (record.parent_pid, record.parent_ktime_ns),
            flags=flags,
            start_time_ns=record.ktime_ns + self._offset_ns,
            in_init_tree=bool(flags & FLAG_IN_INIT_TREE),
            image=image,
            start_boottime_ns=record.start_boottime_ns,
        )
        properties = b""
        if self.enricher.credentials and (record.secureexec or record.nlink == 0):
            properties = encoding.binary_properties(
                record.secureexec,
                record.credentials.euid,
                record.credentials.egid,
                record.inode if record.nlink == 0 else None,
            )
        ancestors = self.cache.told_ancestors(process)
        self.publish(self.encoder.exec_event(process, parent, ancestors, properties))
        self.cache.exec(process, record.replaced_ktime_ns, now_s)

    def _fork(self, record: ForkRecord, now_s: float) -> None:
        self.statistics.forks += 1
        parent = self._parent(record.parent_pid, record.parent_ktime_ns)
        if parent is None:
            return  # its record was lost, and counted: the exit will be bare
        child = forked_from(
            parent,
            pid=record.pid,
            ktime_ns=record.ktime_ns,
            flags=record.flags,
            start_time_ns=record.ktime_ns + self._offset_ns,
            start_boottime_ns=record.start_boottime_ns,
        )
        self.cache.fork(child, now_s)

    def _exit(self, record: ExitRecord, now_s: float) -> None:
        self.statistics.exits += 1
        process = self.cache.get((record.pid, record.image_ktime_ns))
        parent = self.cache.parent_of(process) if process else None
        ancestors = self.cache.told_ancestors(process) if process else ()
        self.publish(
            self.encoder.exit_event(
                record,
                record.ktime_ns + self._offset_ns,
                process,
                parent,
                ancestors,
                start_time_ns=record.image_ktime_ns + self._offset_ns,
            )
        )
        self.cache.exit((record.pid, record.image_ktime_ns), now_s)

    def _parent(self, pid: int, ktime_ns: int) -> Process | None:
        """The image named so; where the kernel did not know which, the one that runs now."""
        if pid == 0:
            return self.cache.get(KERNEL_KEY)
        return self.cache.get((pid, ktime_ns)) if ktime_ns else self.cache.living(pid)

    @property
    def in_pieces(self) -> bool:
        """Whether an exec record is still to come whose longest parts came ahead of it."""
        return self._decoder.in_pieces

    def restore(self, saved: Iterable[Process]) -> None:
        """Enter the table of an earlier collector, whose records go on."""
        self._offset_ns = wall_offset_ns()
        found = list(saved)
        if not any(process.key == KERNEL_KEY for process in found):
            found.insert(0, self._kernel())
        self.cache.restore(found, time.monotonic())

    def add_older(
        self,
        found: list[ProcfsProcess],
        known: BpfMap,
        procfs_root: Path,
        saved: Iterable[Process] = (),
    ) -> None:
        """Enter the processes that were there before the probes, and tell them.

        ``known`` is the kernel's process map, which must learn of them too; one that it has
        already was forked since the probes are attached: its records follow. ``saved`` are
        images that an earlier collector told: they keep their ids and are not told again.
        """
        self._offset_ns = wall_offset_ns()
        now_s = time.monotonic()
        kernel = self._kernel()
        self.cache.add(kernel, now_s)
        entered = [kernel]
        kept: dict[int, Process] = {}
        for process in saved:
            if process.ended:
                process.references = 0  # alive by those that refer to it
                self.cache.add(process, now_s)
                entered.append(process)
            else:
                kept[process.pid] = process
        untold = {kernel.key} if not kept else set()
        started = {p.pid: p.start_ns for p in found} | {p.pid: p.ktime_ns for p in kept.values()}
        in_tree: dict[int, bool] = {}
        # In the order of names, as the original reads them: a child before its parent can miss
        # the mark.
        for p in sorted(found, key=lambda p: str(p.pid)):
            first = p.nspid == 1 and bool(text.procfs_container_id(p.cgroup))
            in_tree[p.pid] = first or in_tree.get(p.parent_pid, False)
        for p in found:
            process = kept.get(p.pid) or self._from_procfs(p, started, in_tree[p.pid])
            if not self._tell_kernel(known, process, p):
                continue
            alive = start_and_args(procfs_root, p.pid)
            if (alive is None or alive[0] != p.start_ns) and known.delete(_KEY.pack(p.pid)):
                continue  # it ended before the kernel side knew it: no exit will be told
            self.cache.add(process, now_s)
            entered.append(process)
            if p.cmdline and p.pid not in kept:  # kernel threads are known, but not told
                untold.add(process.key)
        for process in entered:
            if not process.ended:
                self.cache.adopt(process)
            if process.key not in untold:
                continue
            parent = self.cache.parent_of(process)
            ancestors = self.cache.told_ancestors(process)
            self.publish(self.encoder.exec_event(process, parent, ancestors))
            self.statistics.older += 1

    def snapshot(self) -> list[bytes]:
        """Return a process_exec event with the flag procFS for each process alive, oldest first."""
        found = []
        for process in self.cache.all_living():
            seen = replace(process, flags=process.flags | FLAG_PROCFS, wire=b"")
            parent = self.cache.parent_of(process)
            ancestors = self.cache.told_ancestors(process)
            found.append(self.encoder.exec_event(seen, parent, ancestors))
        return found

    def _kernel(self) -> Process:
        return Process(
            pid=0,
            ktime_ns=KERNEL_KEY[1],
            parent=KERNEL_KEY,
            flags=FLAG_PROCFS,
            start_time_ns=KERNEL_KEY[1] + self._offset_ns,
            in_init_tree=False,
            image=Image("<kernel>", auid=NO_LOGIN_UID),
        )

    def _from_procfs(self, p: ProcfsProcess, started: dict[int, int], in_tree: bool) -> Process:
        image, flags = self.enricher.from_procfs(p, in_init_tree=in_tree)
        parent = (p.parent_pid, started.get(p.parent_pid, 0)) if p.parent_pid else KERNEL_KEY
        return Process(
            pid=p.pid,
            ktime_ns=p.start_ns,
            parent=parent,
            flags=flags,
            start_time_ns=p.start_ns + self._offset_ns,
            in_init_tree=in_tree,
            image=image,
            start_boottime_ns=p.start_ns,
        )

    def _tell_kernel(self, known: BpfMap, process: Process, p: ProcfsProcess) -> bool:
        key = _KEY.pack(process.pid)
        flags = process.flags & FLAG_IN_INIT_TREE
        value = _VALUE.pack(
            process.ktime_ns, process.parent[1], process.parent[0], flags, p.start_ns
        )
        try:
            return known.insert(key, value)
        except OSError as error:
            log.warning("process map full", pid=process.pid, error=str(error))
            return True
