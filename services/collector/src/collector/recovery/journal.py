"""What a killed collector had read from the ring, on disk: the next one goes on where it stopped.

    journal/00000007     entries one after the other, since the process table was last saved

The ring gives its room free only when what was there is here. So between the saved table, this
and the ring no record is missing, and replaying them makes the same events with the same numbers.
Nothing is synced: the kernel keeps what a killed process wrote, and after a power failure there is
no ring to go on with. A file lives for some seconds and mostly never reaches the disk.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import structlog

from tetra.v1.node_pb2 import LossCounters

_MAGIC = 0x544A4E31  # "TJN1"
_HEADER = Struct("<II")  # magic, crc32 of all that follows
_ENTRY = Struct("<IIqQ")  # kind, bytes of payload, two numbers

log = structlog.get_logger()


class _Kind(IntEnum):
    RECORDS = 1  # numbers: offset of the calendar clock, position in the ring behind them
    BASE = 2  # number: of this collector's first event
    LOSS = 3  # payload: LossCounters, which batches tell from now on


class Records(NamedTuple):
    """A part of the ring as it was, with the calendar's offset when it was read."""

    offset_ns: int
    position: int  # behind it, bytes since the ring was made
    data: bytes  # for ring.records_in


Entry = Records | int | LossCounters  # an int is the number of the first event


@dataclass(slots=True)
class Journal:
    """Appends to the newest file; a disk that takes nothing stops it until the next file.

    So does ``limit_bytes``, where the table could not be saved for long; 0: no journal at all.
    """

    folder: Path
    limit_bytes: int = 64 << 20
    size_bytes: int = 0  # of what would have to be replayed
    _number: int = 0
    _fd: int = -1
    _complained: bool = False

    @property
    def next_number(self) -> int:
        """The number that the file of the next `begin` has: for the table saved before it."""
        return max([self._number, *_numbers(self.folder)]) + 1

    def begin(self) -> None:
        """Begin a new file for all that follows, and remove the others: the table has them."""
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
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(self.folder / f"{self._number:08d}", flags, 0o600)
        except OSError as error:
            self._complain(error)

    def records(self, offset_ns: int, data: memoryview, position: int) -> None:
        """Keep a part of the ring."""
        self._append(_Kind.RECORDS, offset_ns, position, data)

    def base(self, number: int) -> None:
        """Keep the number of this collector's first event."""
        self._append(_Kind.BASE, 0, number)

    def loss(self, counters: LossCounters) -> None:
        """Keep the totals that batches carry from now on."""
        self._append(_Kind.LOSS, 0, 0, counters.SerializeToString())

    def close(self) -> None:
        """Close the file; what is in it stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, kind: int, first: int, second: int, data: memoryview | bytes = b"") -> None:
        if self._fd < 0:
            return
        entry = _ENTRY.pack(kind, len(data), first, second)
        header = _HEADER.pack(_MAGIC, zlib.crc32(data, zlib.crc32(entry)))
        size = len(header) + len(entry) + len(data)
        try:
            if self.size_bytes + size > self.limit_bytes:
                raise OSError(0, f"{self.limit_bytes} bytes, and the process table is not saved")
            written = os.writev(self._fd, [header, entry, data])
            if written != size:
                raise OSError(0, f"{written} of {size} bytes written")
        except OSError as error:
            self._complain(error)
            self.close()
            return
        self.size_bytes += size
        if self._complained:
            self._complained = False
            log.info("journal works again", folder=str(self.folder))

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            log.warning(
                "journal unusable: a collector that is killed now loses what it holds in memory",
                folder=str(self.folder),
                error=error.strerror or str(error),
            )
        self._complained = True


@dataclass(slots=True)
class Replay:
    """Reads the entries since a saved table; `whole` tells whether they join."""

    folder: Path
    number: int  # the first file
    position: int  # in the ring, of the table
    whole: bool = True
    entries: int = 0

    def __iter__(self) -> Iterator[Entry]:
        for number in sorted(n for n in _numbers(self.folder) if n >= self.number):
            try:
                data = (self.folder / f"{number:08d}").read_bytes()
            except OSError as error:
                log.warning("journal unreadable", file=number, error=error.strerror)
                self.whole = False
                return
            yield from self._read(data)

    def _read(self, data: bytes) -> Iterator[Entry]:
        at = 0
        while at + _HEADER.size + _ENTRY.size <= len(data):
            magic, crc = _HEADER.unpack_from(data, at)
            body = at + _HEADER.size
            kind, length, first, second = _ENTRY.unpack_from(data, body)
            end = body + _ENTRY.size + length
            if magic != _MAGIC or end > len(data) or zlib.crc32(data[body:end]) != crc:
                return  # a torn tail: its records are still in the ring
            payload = data[body + _ENTRY.size : end]
            at = end
            self.entries += 1
            if kind == _Kind.RECORDS:
                if second != self.position + length:  # the disk was full in between
                    self.whole = False
                    return
                self.position = second
                yield Records(first, second, payload)
            elif kind == _Kind.BASE:
                yield second
            elif kind == _Kind.LOSS:
                yield LossCounters.FromString(payload)


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    except OSError:
        return []
