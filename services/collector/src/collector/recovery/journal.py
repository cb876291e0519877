"""Records read from the ring, on disk: the next collector continues after a kill.

    journal/00000007     a header, then entries, since the process table was last saved

The reader frees records in the ring only when they are in the journal. So no record is missing
between the saved table, the journal and the ring, and a replay creates the same events with the
same numbers. Nothing is synced: the kernel keeps what a killed process wrote, and after a power
failure there is no ring to continue in. A file lives for some seconds and mostly never reaches the
disk.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import structlog

from collector.recovery.bounds import MAX_NUMBER
from tetra.v1.node_pb2 import LossCounters
from tetra.v1.policy_pb2 import PolicyRevision

VERSION = 2
LIMIT_BYTES = 64 << 20
_MAGIC = b"TJRN"
_FILE = Struct("<4sI")  # magic, version
_HEADER = Struct("<I")  # crc32 of the entry that follows
_ENTRY = Struct("<4sIqQ")  # kind, bytes of payload, two numbers

# Kinds of entries, four letters each. A reader stops at a kind that it does not know.
RECORDS = b"RECS"  # numbers: offset of the calendar clock, position in the ring behind them
BASE = b"BASE"  # number: of this collector's first event
LOSS = b"LOSS"  # payload: LossCounters, which batches carry from now on
MADE = b"MADE"  # number: offset of the calendar clock; payload: a record that no ring has had
POLICY = b"PLCY"  # payload: PolicyRevision, whose records may follow

log = structlog.get_logger()


class Entry(NamedTuple):
    """One entry; the meaning of the numbers and the payload belongs to its kind."""

    kind: bytes
    first: int
    second: int
    payload: bytes


@dataclass(slots=True)
class Journal:
    """Appends to the newest file. A disk that fails stops it until the next file begins.

    So does ``limit_bytes``, if the table could not be saved for long; 0: no journal at all.
    """

    folder: Path
    limit_bytes: int = LIMIT_BYTES
    size_bytes: int = 0  # of what would have to be replayed
    _number: int = 0
    _fd: int = -1
    _complained: bool = False

    @property
    def next_number(self) -> int:
        """The number of the file that the next `begin` makes: for the table saved before it."""
        return max([self._number, *_numbers(self.folder)]) + 1

    def begin(self) -> None:
        """Begin a new file, and remove the older ones: the saved table includes them."""
        self.close()
        self._number = self.next_number
        self.size_bytes = 0
        for number in _numbers(self.folder):
            with contextlib.suppress(OSError):
                (self.folder / f"{number:08d}").unlink()
        if not self.limit_bytes:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self.folder / f"{self._number:08d}", flags, 0o600)
            os.write(self._fd, _FILE.pack(_MAGIC, VERSION))
        except OSError as error:
            self._complain(error)

    def records(self, offset_ns: int, data: memoryview, position: int) -> None:
        """Append a part of the ring, with the calendar's offset and the position behind it."""
        self.append(RECORDS, offset_ns, position, data)

    def made(self, offset_ns: int, record: bytes) -> None:
        """Append a record that the collector itself made, with the calendar's offset."""
        self.append(MADE, offset_ns, payload=record)

    def base(self, number: int) -> None:
        """Append the number of this collector's first event."""
        self.append(BASE, 0, number)

    def loss(self, counters: LossCounters) -> None:
        """Append the totals that batches carry from now on."""
        self.append(LOSS, 0, 0, counters.SerializeToString())

    def policy(self, revision: PolicyRevision) -> None:
        """Append the revision of a policy, which its records refer to, before it is switched on."""
        self.append(POLICY, payload=revision.SerializeToString())

    def append(
        self, kind: bytes, first: int = 0, second: int = 0, payload: memoryview | bytes = b""
    ) -> None:
        """Append an entry of ``kind``, which every reader must know or stop at."""
        if self._fd < 0:
            return
        entry = _ENTRY.pack(kind, len(payload), first, second)
        header = _HEADER.pack(zlib.crc32(payload, zlib.crc32(entry)))
        size = len(header) + len(entry) + len(payload)
        try:
            if self.size_bytes + size > self.limit_bytes:
                raise OSError(0, f"{self.limit_bytes} bytes, and the process table is not saved")
            written = os.writev(self._fd, [header, entry, payload])
            if written != size:
                raise OSError(0, f"{written} of {size} bytes written")
        except OSError as error:
            self._complain(error)
            self.close()
            return
        self.size_bytes += size
        if self._complained:
            self._complained = False
            log.info("journal usable again", folder=str(self.folder))

    def close(self) -> None:
        """Close the file; its contents stay."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            log.warning(
                "journal unusable: if the collector is killed now, events in its memory are lost",
                folder=str(self.folder),
                error=error.strerror or str(error),
            )
        self._complained = True


@dataclass(slots=True)
class Replay:
    """Reads the entries since a saved table, in order.

    ``stopped`` is empty if all of them follow the table without a gap, else the reason why the
    reading ended early.
    """

    folder: Path
    number: int  # the first file
    position: int  # in the ring, of the table; then behind the last entry
    kinds: frozenset[bytes] = frozenset((RECORDS, BASE, LOSS, MADE, POLICY))
    stopped: str = ""
    entries: int = 0

    def __iter__(self) -> Iterator[Entry]:
        for number in sorted(n for n in _numbers(self.folder) if n >= self.number):
            try:
                data = (self.folder / f"{number:08d}").read_bytes()
            except OSError as error:
                self.stopped = f"file {number}: {error.strerror}"
                return
            yield from self._read(number, data)
            if self.stopped:
                return

    def _read(self, number: int, data: bytes) -> Iterator[Entry]:
        if len(data) < _FILE.size:  # killed while it began the file
            return
        magic, version = _FILE.unpack_from(data)
        if magic != _MAGIC:  # the journal of a collector before this format, or damaged
            self.stopped = f"file {number}: not a journal that this collector reads"
            return
        if version != VERSION:
            self.stopped = f"file {number}: journal of version {version}, this one reads {VERSION}"
            return
        at = _FILE.size
        while at + _HEADER.size + _ENTRY.size <= len(data):
            (crc,) = _HEADER.unpack_from(data, at)
            body = at + _HEADER.size
            kind, length, first, second = _ENTRY.unpack_from(data, body)
            end = body + _ENTRY.size + length
            if end > len(data) or zlib.crc32(data[body:end]) != crc:
                return  # a torn tail: its records are still in the ring
            at = end
            self.entries += 1
            entry = Entry(kind, first, second, data[body + _ENTRY.size : end])
            self.stopped = self._check(number, entry)
            if self.stopped:
                return
            yield entry

    def _check(self, number: int, entry: Entry) -> str:
        """Return why the reading has to end at ``entry``; empty if it does not."""
        if entry.kind not in self.kinds:
            return f"file {number}: entry of unknown kind {entry.kind.decode('ascii', 'replace')!r}"
        if entry.kind == RECORDS:
            if entry.second != self.position + len(entry.payload):
                return f"file {number}: records are missing behind position {self.position}"
            self.position = entry.second
        if entry.kind == BASE and entry.second > MAX_NUMBER:
            return f"file {number}: number {entry.second} is too large"
        return ""


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    except OSError:
        return []
