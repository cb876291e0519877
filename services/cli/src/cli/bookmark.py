"""``--cursor-file``: a place in the stream, and in the output, that survives a kill.

If stdout is a regular file, the bookmark also holds its length. Output beyond that length is from a
`tetra` that was killed; it is removed before the next `tetra` prints it again, so each event is in
the file once. A pipe or a terminal cannot be cut: at most one batch, printed since the bookmark was
written, is printed a second time.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from pathlib import Path
from typing import NamedTuple

from cli.cursor import cursor_text, parse_cursor
from cli.errors import TetraError, UsageError
from tetra.v1.stream_pb2 import Cursor

# The bookmark of a regular file is written this often, after the output itself is on disk.
_EVERY_S = 1.0
# Overwritten in place: one write that a kill cannot tear and that needs no free disk space.
_RECORD_BYTES = 256


class _Length(NamedTuple):
    """How far a file was written."""

    device: int
    inode: int
    size: int


class Bookmark:
    """The file, locked from `__init__` to `close`."""

    def __init__(self, path: Path, output_fd: int) -> None:
        """Open or create the file at ``path``; raise `TetraError` if that fails.

        Events are printed to ``output_fd``.
        """
        self._path = path
        self._output_fd = output_fd
        self.cursor: Cursor | None = None  # where to continue; None: no place yet
        self.since_ns = 0  # events before this time are left out, calendar clock
        # The cursor of a snapshot does not move: until it is complete, it is requested again.
        self.snapshot = False
        self._snapshot_at: Cursor | None = None
        self._length: _Length | None = None
        self._saved_at = 0.0
        self._dirty = False
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise TetraError(f"--cursor-file: {path}: {_cause(error)}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise TetraError(f"--cursor-file: {path}: another tetra is using it") from None
        self._load(os.pread(self._fd, _RECORD_BYTES, 0))

    def begin(self) -> int:
        """Remove output that is printed again; return the number of its bytes."""
        cut = self._cut()
        self._length = self._now(begun=False)
        self._save()
        return cut

    def passed(self, cursor: Cursor | None) -> None:
        """Note that all events up to ``cursor`` are printed; None: there is no cursor yet."""
        if cursor is None:
            return
        if self.snapshot:
            self._snapshot_at = self._snapshot_at or cursor
            if cursor == self._snapshot_at:
                return
        self.cursor = cursor
        self._length = self._now(begun=True)
        self._dirty = True
        if self._length is None or time.monotonic() - self._saved_at >= _EVERY_S:
            self._save()

    def close(self) -> None:
        """Save and unlock."""
        if self._dirty:
            self._save()
        os.close(self._fd)

    def _load(self, record: bytes) -> None:
        if not record:
            return
        try:
            found = json.loads(record)
            self.cursor = parse_cursor(found["cursor"]) if found["cursor"] else None
            self.since_ns = int(found["since_ns"])
            self._length = _Length(*found["output"]) if found["output"] else None
        except (ValueError, KeyError, TypeError, UsageError):
            os.close(self._fd)
            raise UsageError(
                f"--cursor-file: {self._path}: not a cursor file", "--cursor-file place"
            ) from None

    def _save(self) -> None:
        record = {
            "cursor": cursor_text(self.cursor) if self.cursor is not None else None,
            "since_ns": self.since_ns,
            "output": self._length,
        }
        try:
            if self._length is not None:  # the output first, then its length
                os.fdatasync(self._output_fd)
            os.pwrite(self._fd, f"{json.dumps(record):<{_RECORD_BYTES - 1}}\n".encode(), 0)
            if self._length is not None:
                os.fdatasync(self._fd)
        except OSError as error:
            raise TetraError(f"--cursor-file: {self._path}: {_cause(error)}") from None
        self._saved_at = time.monotonic()
        self._dirty = False

    def _cut(self) -> int:
        """Shorten the output to the length in the bookmark, if it is the same file and longer."""
        there, now = self._length, self._now(begun=False)
        if there is None or now is None or there[:2] != now[:2]:
            return 0
        beyond = os.fstat(self._output_fd).st_size - there.size
        if beyond <= 0:
            return 0
        try:
            os.ftruncate(self._output_fd, there.size)
            os.lseek(self._output_fd, there.size, os.SEEK_SET)
        except OSError as error:
            raise TetraError(f"--cursor-file: standard output: {_cause(error)}") from None
        return beyond

    def _now(self, *, begun: bool) -> _Length | None:
        """Return how far the output is written; None if it is not a regular file.

        ``begun``: something was written. Before that, the position in a file to append to is 0.
        """
        about = os.fstat(self._output_fd)
        if not stat.S_ISREG(about.st_mode):
            return None
        appends = fcntl.fcntl(self._output_fd, fcntl.F_GETFL) & os.O_APPEND
        place = os.lseek(self._output_fd, 0, os.SEEK_CUR)
        size = about.st_size if appends and not (begun and place) else place
        return _Length(about.st_dev, about.st_ino, size)


def _cause(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
