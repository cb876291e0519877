"""The process table across restarts: a reported process keeps its exec_id and is not repeated.

A saved process is the one in /proc only if pid, start time and the address of its arguments agree:
a reused pid differs in the first two, an exec that no collector saw in the last.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from collector.events.encoder import Encoder
from collector.processes.procfs import start_and_args
from collector.processes.table import Image, Process
from collector.recovery.bounds import MAX_NUMBER
from tetra.v1.state_pb2 import SavedProcess, SavedTable
from tetragon.tetragon_pb2 import Process as TetragonProcess

_FILE = "processes.pb"
# The kernel's start_boottime has nanoseconds, /proc has ticks of 10 ms.
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

log = structlog.get_logger()


def save(folder: Path, about: SavedTable, table: Iterable[Process], encoder: Encoder) -> bool:
    """Write every image that is alive or referred to into ``about``, and that to the disk.

    Return False, and log why, if the disk fails: the older file stays.
    """
    for process in table:
        if process.references <= 0:
            continue
        about.processes.append(
            SavedProcess(
                pid=process.pid,
                ktime_ns=process.ktime_ns,
                parent_pid=process.parent[0],
                parent_ktime_ns=process.parent[1],
                flags=process.flags,
                start_time_ns=process.start_time_ns,
                in_init_tree=process.in_init_tree,
                is_clone=process.is_clone,
                ended=process.ended,
                start_boottime_ns=process.start_boottime_ns,
                arg_start=process.image.arg_start,
                binary=process.image.binary,
                image=encoder.image(process.image),
            )
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{_FILE}.new"
        partial.write_bytes(about.SerializeToString())
        partial.replace(folder / _FILE)
    except OSError as error:
        log.warning("process table not saved", file=error.filename, error=error.strerror)
        return False
    return True


def read(folder: Path, node_name: str) -> SavedTable | None:
    """Return what a collector of this node saved; None if there is nothing readable."""
    try:
        saved = SavedTable.FromString((folder / _FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, DecodeError) as error:
        log.warning("saved process table unusable", file=str(folder / _FILE), error=str(error))
        return None
    if saved.node_name != node_name:
        return None
    if not all(map(_has_image, saved.processes)) or not _has_numbers(saved):
        log.warning("saved process table unusable", file=str(folder / _FILE), error="damaged")
        return None
    return saved


def written_s(folder: Path) -> float:
    """Return when a collector last wrote its table or journal, calendar clock; 0: never."""
    files = (folder / _FILE, *(folder / "journal").glob("*"))
    times = [0.0]
    for file in files:
        with contextlib.suppress(OSError):
            times.append(file.stat().st_mtime)
    return max(times)


# Later numbers and times continue from these.
def _has_numbers(saved: SavedTable) -> bool:
    counts = (saved.base, saved.made, saved.collector_start_ns, saved.probes_start_ns)
    return all(0 <= n <= MAX_NUMBER for n in counts) and saved.made >= len(saved.unreported)


def processes(saved: SavedTable, kernel: Process) -> list[Process]:
    """Return the images of a saved table, in its order; ``kernel`` is added if it is missing."""
    # Forks share one image. The address of the arguments is part of its identity: two runs with
    # the same arguments are two images.
    images: dict[tuple[bytes, int], Image] = {}
    found = [
        _process(p, images.setdefault((p.image, p.arg_start), _image(p))) for p in saved.processes
    ]
    if not any(process.key == kernel.key for process in found):
        found.insert(0, kernel)
    return found


def still_alive(table: Iterable[Process], procfs: Path) -> list[Process]:
    """Return the images that are alive as they were, and those that these refer to."""
    found = {process.key: process for process in table if process.pid}
    kept = {
        key: process
        for key, process in found.items()
        if not process.ended and _is_alive(process, procfs)
    }
    for process in list(kept.values()):  # ended parents, for as long as a process refers to them
        while (parent := found.get(process.parent)) and parent.key not in kept:
            parent.ended = True
            kept[parent.key] = process = parent
    return list(kept.values())


def _is_alive(process: Process, procfs: Path) -> bool:
    now = start_and_args(procfs, process.pid)
    if now is None:
        return False
    start_ns, arg_start = now
    return (
        start_ns // _TICK_NS == process.start_boottime_ns // _TICK_NS
        and arg_start == process.image.arg_start
    )


# The bytes go into events unchanged.
def _has_image(p: SavedProcess) -> bool:
    try:
        TetragonProcess.FromString(p.image)
    except DecodeError:
        return False
    return p.start_time_ns >= 0


def _image(p: SavedProcess) -> Image:
    return Image(p.binary, arg_start=p.arg_start, saved=p.image)


def _process(p: SavedProcess, image: Image) -> Process:
    return Process(
        pid=p.pid,
        ktime_ns=p.ktime_ns,
        parent=(p.parent_pid, p.parent_ktime_ns),
        flags=p.flags,
        start_time_ns=p.start_time_ns,
        in_init_tree=p.in_init_tree,
        image=image,
        start_boottime_ns=p.start_boottime_ns,
        is_clone=p.is_clone,
        ended=p.ended,
    )
