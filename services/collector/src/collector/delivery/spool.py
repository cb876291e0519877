"""Events that NATS has not acknowledged, on disk: they survive an outage and a crash.

    spool/<start of the collector, ns>/      one folder a run, oldest first
        run.json                             which node, boot and start the numbers belong to
        base                                 number of event 0, from when it is known
        00000001.seg ...                     records, one after the other

A record is a header with a checksum and a serialized EventBatch that has only `loss` and `events`.
Nothing is written while NATS acknowledges. The progress of an old run is not stored: the stream has
its last number. A torn tail (the machine lost power, the disk was full) ends its segment and is
counted; the next segment is read normally.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import structlog

from chassis.folders import replace_durably
from collector.delivery.segments import Record, Run, Segment, read_run, record_bytes, write_run

SEGMENT_BYTES = 4 << 20

log = structlog.get_logger()


@dataclass(slots=True)
class SpoolStatistics:
    """Totals since this collector started."""

    written: int = 0
    dropped: int = 0  # events: the oldest of a full spool, and those in damaged records
    torn: int = 0  # places where the rest of a segment was unreadable


@dataclass(slots=True)
class Spool:
    """Records of several runs, oldest first, at most ``limit_bytes``; 0: no disk at all.

    ``sync``: "always" makes each record durable before `append` returns, "never" leaves it to the
    kernel, which a crash of the collector does not harm.
    """

    folder: Path
    limit_bytes: int
    sync: str = "always"
    statistics: SpoolStatistics = field(default_factory=SpoolStatistics)
    _segments: deque[Segment] = field(default_factory=deque)
    _file: BinaryIO | None = None  # the newest segment, being written
    _peeked: Record | None = None
    _complained: bool = False

    def open(self, node_name: str) -> None:
        """Find the records of the node's earlier runs."""
        if not self.limit_bytes:
            return
        try:
            found = sorted(path for path in self.folder.iterdir() if path.is_dir())
        except FileNotFoundError:
            return
        except OSError as error:
            self._complain(error)
            return
        for folder in found:
            run = read_run(folder)
            if run is None or run.node_name != node_name:
                continue  # of another node, or incomplete
            for path in sorted(folder.glob("*.seg")):
                self._segments.append(self._scan(path, run))
        self._remove_empty()
        if self._segments:
            log.info("spool found", events=self.events, bytes=self.size_bytes)

    @property
    def events(self) -> int:
        """Events that are stored here."""
        return sum(segment.events for segment in self._segments)

    @property
    def size_bytes(self) -> int:
        """Their size on disk."""
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def works(self) -> bool:
        """Whether the last write succeeded."""
        return self.limit_bytes > 0 and not self._complained

    def find(self, start_time_ns: int) -> tuple[Run | None, int]:
        """Return the run of a collector that started then, and the index behind its last event."""
        segments = [s for s in self._segments if s.run.start_time_ns == start_time_ns]
        return (segments[-1].run, max(s.end for s in segments)) if segments else (None, 0)

    def append(self, run: Run, first: int, count: int, payload: bytes) -> bool:
        """Write ``count`` events of ``run`` from index ``first`` on; return whether that succeeded.

        All events of a run come before those of the next one. If the spool is full, the oldest
        segment is dropped and counted.
        """
        if not self.limit_bytes:
            return False
        data = record_bytes(first, count, payload)
        try:
            segment = self._writable(run)
            assert self._file is not None
            self._file.write(data)
            self._file.flush()
            if self.sync == "always":
                os.fsync(self._file.fileno())
        except OSError as error:
            self._complain(error)
            self._close_file()
            return False
        segment.added(first, count, len(data))
        self.statistics.written += count
        if self._complained:
            self._complained = False
            log.info("spool usable again", folder=str(self.folder))
        while self.size_bytes > self.limit_bytes and len(self._segments) > 1:
            self._drop_oldest()
        return True

    def peek(self) -> Record | None:
        """Return the oldest record, the same until `pop`; None if the spool is empty."""
        while self._peeked is None and self._segments:
            segment = self._segments[0]
            if not segment.records:
                self._finish(segment)
                continue
            offset, count = segment.records[0]
            record = self._read(segment, offset, count)
            if record is None:
                continue
            self._peeked = record
        return self._peeked

    def pop(self) -> None:
        """Remove the record that `peek` returned."""
        record, self._peeked = self._peeked, None
        if record is None:
            return
        segment = record.segment
        if segment.records and segment in self._segments:
            segment.records.popleft()
            segment.events -= record.events
            if not segment.records:
                self._finish(segment)

    def discard(self, reason: str) -> None:
        """Drop the record that `peek` returned, and count its events."""
        if (record := self._peeked) is not None:
            self.statistics.dropped += record.events
            log.error("spool record dropped", reason=reason, file=str(record.segment.path))
        self.pop()

    def number(self, run: Run, base: int) -> None:
        """Store that event 0 of ``run`` has number ``base``, before any of it is published.

        Otherwise a crash in the middle would number the rest again, and so publish it twice.
        """
        run.base = base
        folder = self.folder / str(run.start_time_ns)
        if folder.is_dir():
            try:
                replace_durably(folder / "base", str(base).encode())
            except OSError as error:
                self._complain(error)

    def close(self) -> None:
        """Close the files; their contents stay."""
        self._close_file()

    def _writable(self, run: Run) -> Segment:
        newest = self._segments[-1] if self._segments else None
        if (
            self._file is not None
            and newest
            and newest.run is run
            and newest.size_bytes < SEGMENT_BYTES
        ):
            return newest
        self._close_file()
        folder = self.folder / str(run.start_time_ns)
        write_run(folder, run)
        # A killed collector may have left one without a complete record.
        names = [path.stem for path in folder.glob("*.seg")]
        taken = max((int(name) for name in names if name.isdecimal()), default=0)
        path = folder / f"{taken + 1:08d}.seg"
        self._file = path.open("xb")
        segment = Segment(path, run)
        self._segments.append(segment)
        return segment

    def _scan(self, path: Path, run: Run) -> Segment:
        segment = Segment(path, run)
        try:
            if not segment.scan():
                self._torn(segment, segment.size_bytes)
        except OSError as error:
            self._complain(error)
        return segment

    def _read(self, segment: Segment, offset: int, count: int) -> Record | None:
        try:
            record = segment.read(offset, count)
        except OSError as error:
            self._complain(error)
            record = None
        if record is None:
            self._torn(segment, offset)
            # The offsets of the records behind it in this segment cannot be trusted.
            self.statistics.dropped += segment.events
            segment.events = 0
            segment.records.clear()
        return record

    def _torn(self, segment: Segment, offset: int) -> None:
        self.statistics.torn += 1
        log.warning("spool torn", file=str(segment.path), offset=offset)

    def _drop_oldest(self) -> None:
        segment = self._segments.popleft()
        under_way = self._peeked.events if self._peeked and self._peeked.segment is segment else 0
        self.statistics.dropped += segment.events - under_way
        self._unlink(segment)

    def _finish(self, segment: Segment) -> None:
        if self._segments and self._segments[0] is segment:
            self._segments.popleft()
        self._unlink(segment)

    def _unlink(self, segment: Segment) -> None:
        if not self._segments:  # it was the one being written
            self._close_file()
        try:
            segment.path.unlink(missing_ok=True)
            if not any(other.run is segment.run for other in self._segments):
                for name in ("run.json", "base"):
                    (segment.path.parent / name).unlink(missing_ok=True)
                segment.path.parent.rmdir()
        except OSError as error:
            self._complain(error)

    def _remove_empty(self) -> None:
        for segment in [s for s in self._segments if not s.records]:
            self._segments.remove(segment)
            self._unlink(segment)

    def _close_file(self) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self._complain(error)
            self._file = None

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            log.warning(
                "spool unusable: events wait in memory only",
                folder=str(self.folder),
                error=error.strerror or str(error),
            )
        self._complained = True
