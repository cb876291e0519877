"""``--cursor-file``: a place in the stream that outlives a kill, and in what was printed from it.

Where standard output is a regular file the bookmark holds its length, too. What a killed `tetra`
printed behind that place is cut off before the next one prints it again, so each event stands there
once, whenever the kill came. A pipe or a terminal takes nothing back: what was printed since the
bookmark was written, at most one batch, comes a second time.
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

# Into a file the place is written this often, after what it stands for is on disk.
_EVERY_S = 1.0
# Written over in place, in one piece that no kill can tear and that a full disk has room for.
_RECORD_BYTES = 256


class _Length(NamedTuple):
    """How far a file had been written."""

    device: int
    inode: int
    size: int


class Bookmark:
    """The file, locked from `__init__` to `close`."""

    def __init__(self, path: Path, output_fd: int) -> None:
        """Open or make the file at ``path``; raise `TetraError` if that cannot be done.

        ``output_fd``: where events are printed.
        """
        self._path = path
        self._output_fd = output_fd
        self.cursor: Cursor | None = None  # where to go on; None: nowhere yet
        self.since_ns = 0  # no event before this time is wanted, calendar clock
        # While a snapshot comes, its cursor stays where it was taken: it begins anew or is over.
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
        """Cut off what comes again, note where the output begins; return how many bytes went."""
        cut = self._cut()
        self._length = self._now(begun=False)
        self._save()
        return cut

    def passed(self, cursor: Cursor | None) -> None:
        """Note that all up to ``cursor`` is printed; None: nothing can be gone on from yet."""
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
                f"--cursor-file: {self._path}: it holds something else", "a name that is free"
            ) from None

    def _save(self) -> None:
        record = {
            "cursor": cursor_text(self.cursor) if self.cursor is not None else None,
            "since_ns": self.since_ns,
            "output": self._length,
        }
        try:
            if self._length is not None:  # first what is printed, then that it is
                os.fdatasync(self._output_fd)
            os.pwrite(self._fd, f"{json.dumps(record):<{_RECORD_BYTES - 1}}\n".encode(), 0)
            if self._length is not None:
                os.fdatasync(self._fd)
        except OSError as error:
            raise TetraError(f"--cursor-file: {self._path}: {_cause(error)}") from None
        self._saved_at = time.monotonic()
        self._dirty = False

    def _cut(self) -> int:
        """Shorten the output to where the bookmark lies, if it is the same file and longer."""
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
        """Return how far the output is written; None where it is no regular file.

        ``begun``: something was written. Before that, a file to append to stands at 0.
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
