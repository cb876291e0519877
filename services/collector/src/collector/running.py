"""Processes that run already: those older than the probes, and a snapshot for a client."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from struct import Struct
from typing import Protocol

import structlog

from collector.events import process as events
from collector.events.encoder import Encoder
from collector.metadata.enricher import Enricher
from collector.processes.procfs import NO_LOGIN_UID, ProcfsProcess, start_and_args
from collector.processes.table import KERNEL_KEY, Image, Process, ProcessTable
from collector.records import layouts, text
from collector.records.process import FLAG_IN_INIT_TREE, FLAG_PROCFS

_KEY = Struct("<I")

log = structlog.get_logger()


class ProcessMap(Protocol):
    """The kernel's process map; see `BpfMap`."""

    def insert(self, key: bytes, value: bytes) -> bool:
        """Enter ``key`` unless it is there; return whether it was entered."""

    def delete(self, key: bytes) -> bool:
        """Delete ``key``; return whether it was there."""


def kernel_process(offset_ns: int) -> Process:
    """Return the synthetic process ``<kernel>``, the parent of pids 1 and 2."""
    return Process(
        pid=0,
        ktime_ns=KERNEL_KEY[1],
        parent=KERNEL_KEY,
        flags=FLAG_PROCFS,
        start_time_ns=KERNEL_KEY[1] + offset_ns,
        in_init_tree=False,
        image=Image("<kernel>", auid=NO_LOGIN_UID),
    )


def snapshot(table: ProcessTable, encoder: Encoder) -> list[bytes]:
    """Return a process_exec event with the flag procFS for each living process, oldest first."""
    found = []
    for process in table.all_living():
        seen = replace(process, flags=process.flags | FLAG_PROCFS)
        parent = table.parent_of(process)
        ancestors = table.reported_ancestors(process)
        found.append(events.running_event(encoder, seen, parent, ancestors))
    return found


@dataclass(slots=True)
class Bootstrap:
    """Enters the processes that are older than the probes into the table, and reports them."""

    table: ProcessTable
    enricher: Enricher
    encoder: Encoder
    known: ProcessMap  # the kernel's, which needs these processes too
    procfs: Path
    offset_ns: int  # of the calendar clock

    def run(
        self, found: Sequence[ProcfsProcess], saved: Iterable[Process], now_s: float
    ) -> list[bytes]:
        """Return an event for each process in ``found`` that no collector has reported yet.

        ``saved`` are images that an earlier collector reported: they keep their ids and are not
        reported again. A process that the kernel's map has already was forked after the probes
        were attached: its records follow.
        """
        kernel = kernel_process(self.offset_ns)
        self.table.add(kernel, now_s)
        entered = [kernel]
        kept: dict[int, Process] = {}
        for process in saved:
            if process.ended:
                process.references = 0  # kept alive by the processes that refer to it
                self.table.add(process, now_s)
                entered.append(process)
            else:
                kept[process.pid] = process
        unreported = set() if kept else {kernel.key}
        started = {p.pid: p.start_ns for p in found} | {p.pid: p.ktime_ns for p in kept.values()}
        in_tree = in_init_trees(found)
        for p in found:
            process = kept.get(p.pid) or self._process(p, started, in_tree[p.pid])
            if not self._enter(process, p, now_s):
                continue
            entered.append(process)
            if p.cmdline and p.pid not in kept:  # kernel threads are known, but not reported
                unreported.add(process.key)
        return self._report(entered, unreported)

    def _report(self, entered: list[Process], unreported: set[tuple[int, int]]) -> list[bytes]:
        reported = []
        for process in entered:
            if not process.ended:
                self.table.adopt(process)
            if process.key not in unreported:
                continue
            parent = self.table.parent_of(process)
            ancestors = self.table.reported_ancestors(process)
            reported.append(events.exec_event(self.encoder, process, parent, ancestors))
        return reported

    def _enter(self, process: Process, p: ProcfsProcess, now_s: float) -> bool:
        """Enter ``process`` into both tables; False if its records follow or it has ended."""
        if not self._enter_kernel(process, p):
            return False
        alive = start_and_args(self.procfs, p.pid)
        if (alive is None or alive[0] != p.start_ns) and self.known.delete(_KEY.pack(p.pid)):
            return False  # it ended before the kernel side knew it: no exit record will come
        self.table.add(process, now_s)
        return True

    def _enter_kernel(self, process: Process, p: ProcfsProcess) -> bool:
        value = layouts.ProcessValue(
            ktime_ns=process.ktime_ns,
            parent_ktime_ns=process.parent[1],
            parent_pid=process.parent[0],
            flags=process.flags & FLAG_IN_INIT_TREE,
            start_boottime_ns=p.start_ns,
        )
        try:
            return self.known.insert(
                _KEY.pack(process.pid), layouts.PROCESS_VALUE.format.pack(*value)
            )
        except OSError as error:
            log.warning("process map full", pid=process.pid, error=str(error))
            return True

    def _process(self, p: ProcfsProcess, started: dict[int, int], in_tree: bool) -> Process:
        image, flags = self.enricher.from_procfs(p, in_init_tree=in_tree)
        parent = (p.parent_pid, started.get(p.parent_pid, 0)) if p.parent_pid else KERNEL_KEY
        return Process(
            pid=p.pid,
            ktime_ns=p.start_ns,
            parent=parent,
            flags=flags,
            start_time_ns=p.start_ns + self.offset_ns,
            in_init_tree=in_tree,
            image=image,
            start_boottime_ns=p.start_ns,
            nspid=p.nspid if image.docker else 0,
        )


def in_init_trees(found: Iterable[ProcfsProcess]) -> dict[int, bool]:
    """Return by pid whether a process descends from the first process of a container.

    Tetragon reads /proc in the order of names ("10" before "9"), so a child that sorts before its
    parent is not marked. That order is kept.
    """
    in_tree: dict[int, bool] = {}
    for p in sorted(found, key=lambda p: str(p.pid)):
        first = p.nspid == 1 and bool(text.procfs_container_id(p.cgroup))
        in_tree[p.pid] = first or in_tree.get(p.parent_pid, False)
    return in_tree
