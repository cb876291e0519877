"""Files of the spool: segments of records, and what is known of the run that wrote them.

A record is a header with a checksum and a serialized EventBatch that has only `loss` and `events`.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import BinaryIO, NamedTuple

from chassis.folders import replace_durably

_MAGIC = 0x54535031  # "TSP1"
_HEADER = Struct("<IIIIQ")  # magic, crc32 of all that follows, payload bytes, events, first index
_CHECKED = Struct("<IIQ")
_MAX_INT64 = (1 << 63) - 1


@dataclass(slots=True)
class Run:
    """One collector's life: its events are numbered ``base`` + their index, counted from 0."""

    node_name: str
    boot_id: str
    start_time_ns: int
    base: int | None = None
    probes_start_ns: int = 0  # since when the probes are attached; 0: as start_time_ns
    least_base: int = 0  # `base` is at least this: the numbers before it are the last collector's


class Record(NamedTuple):
    """Some events of a run, in order."""

    run: Run
    first: int  # index of the first event
    events: int
    payload: bytes  # serialized tetra.v1.EventBatch with loss and events
    segment: Segment


@dataclass(slots=True)
class Segment:
    """One file, and the records in it that were not popped yet."""

    path: Path
    run: Run
    size_bytes: int = 0
    events: int = 0  # not popped yet
    end: int = 0  # index behind the last event
    records: deque[tuple[int, int]] = field(default_factory=deque)  # offset, events; to be read

    def scan(self) -> bool:
        """Find the records; return whether they reach to the end of the file."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            for offset, length, count, first in _headers(file, size):
                self.records.append((offset, count))
                self.events += count
                self.end = first + count
                self.size_bytes = offset + _HEADER.size + length
        return self.size_bytes == size

    def added(self, first: int, count: int, size_bytes: int) -> None:
        """Note a record that was written at the end."""
        self.records.append((self.size_bytes, count))
        self.size_bytes += size_bytes
        self.events += count
        self.end = first + count

    def read(self, offset: int, count: int) -> Record | None:
        """Return the record at ``offset``; None if it is damaged."""
        with self.path.open("rb") as file:
            file.seek(offset)
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return None
            magic, crc, length, _, first = _HEADER.unpack(header)
            payload = file.read(length)
        checked = _CHECKED.pack(len(payload), count, first) + payload
        if magic != _MAGIC or zlib.crc32(checked) != crc:
            return None
        return Record(self.run, first, count, payload, self)


def record_bytes(first: int, count: int, payload: bytes) -> bytes:
    """Return the bytes of a record in a segment."""
    checked = _CHECKED.pack(len(payload), count, first) + payload
    return _HEADER.pack(_MAGIC, zlib.crc32(checked), len(payload), count, first) + payload


def write_run(folder: Path, run: Run) -> None:
    """Describe ``run`` in its folder, once."""
    if (folder / "run.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "node_name": run.node_name,
        "boot_id": run.boot_id,
        "start_time_ns": run.start_time_ns,
        "probes_start_ns": run.probes_start_ns,
    }
    if run.base is not None:
        replace_durably(folder / "base", str(run.base).encode())
    replace_durably(folder / "run.json", json.dumps(about).encode())


def read_run(folder: Path) -> Run | None:
    """Return the run that a folder describes; None if its description is missing or damaged."""
    try:
        about = json.loads((folder / "run.json").read_bytes())
        run = Run(str(about["node_name"]), str(about["boot_id"]), int(about["start_time_ns"]))
        run.probes_start_ns = int(about.get("probes_start_ns", 0))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None  # the last two: Python's JSON accepts Infinity and deep nesting
    if not (0 <= run.start_time_ns <= _MAX_INT64 and 0 <= run.probes_start_ns <= _MAX_INT64):
        return None
    try:
        base = int((folder / "base").read_bytes())
    except (OSError, ValueError):
        return run
    if 0 <= base <= _MAX_INT64:
        run.base = base
    return run


def _headers(file: BinaryIO, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (offset, payload bytes, events, first index) of records with complete lengths."""
    offset = 0
    while offset + _HEADER.size <= size:
        file.seek(offset)
        magic, _, length, count, first = _HEADER.unpack(file.read(_HEADER.size))
        if magic != _MAGIC or offset + _HEADER.size + length > size:
            return
        yield offset, length, count, first
        offset += _HEADER.size + length
