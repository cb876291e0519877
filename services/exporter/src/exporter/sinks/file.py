"""JSON lines in a rotated file: each event exactly once, even if the exporter is killed at any
time.

The place in the stream is saved together with the size of the file at that place. Lines behind it
were written by an exporter that died: they are cut off and written again. A file is rotated only
when the saved place covers all of it.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from errno import ENOTDIR
from pathlib import Path
from typing import Any, TypeVar

import structlog

from chassis.folders import sync_folder
from exporter.config import FileSink
from exporter.errors import SinkError
from exporter.sinks.base import PART_BYTES, Line, in_thread

R = TypeVar("R")

_log = structlog.get_logger()


class File:
    """Appends to ``path``; rotated files are ``<stem>-<time>.<suffix>`` beside it."""

    settle_s = 0.0
    max_batch = 1 << 30

    def __init__(self, sink: FileSink, now: Callable[[], float] = time.time) -> None:
        self._sink = sink
        self.part_bytes = _part_bytes(sink)
        self._path = sink.path
        self._now = now
        self._fd = -1
        self._size = 0
        self._opened_s = 0.0  # calendar clock, when the current file began
        self._marked = False  # whether the saved place is the end of the file
        # Rotated files are compressed and removed only behind the next place: until then the saved
        # one may belong to one of them.
        self._tidy_due = False
        self._tidying: asyncio.Task[None] | None = None

    @property
    def settings(self) -> FileSink:
        """The current rotation."""
        return self._sink

    def configure(self, sink: FileSink) -> None:
        """Rotate and keep as ``sink`` says, from the next events on; its path is the same."""
        self._sink = sink
        self.part_bytes = _part_bytes(sink)
        self._tidy_due = True

    async def open(self, mark: dict[str, Any]) -> None:
        """Open the file, cut off what is behind ``mark``."""
        await self._in_thread(self._open, mark)
        self._marked = False
        self._tidy_due = True  # a killed exporter may have left a file to compress

    async def deliver(self, lines: Sequence[Line]) -> int:
        """Append the lines; if the disk is full, a partial write is cut off again."""
        if self._marked and self._tidy_due:
            self._tidy_due = False
            self._tidy_soon()
        if self._marked and self._is_due():
            await self._in_thread(self._rotate)
            self._tidy_due = True
        data = "".join([f"{line.text}\n" for line in lines]).encode()
        self._marked = False
        await self._in_thread(self._append, data)
        return 0

    async def mark(self) -> dict[str, Any]:
        """Sync the file."""
        mark = await self._in_thread(self._sync)
        self._marked = True
        return mark

    async def close(self) -> None:
        """Close the file."""
        if self._tidying is not None:
            await asyncio.wait((self._tidying,))
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def _in_thread(self, step: Callable[..., R], *args: Any) -> R:
        return await in_thread(self._sink.name, self._path, step, *args)

    def _open(self, mark: dict[str, Any]) -> None:
        if self._fd >= 0:  # opened again after a delivery that failed
            os.close(self._fd)
        self._fd = self._open_file()
        state = os.fstat(self._fd)
        if not stat.S_ISREG(state.st_mode):
            raise SinkError(f"sink {self._sink.name}: {self._path}: not a regular file")
        if any(one.stat().st_ino == mark.get("inode") for one in self._rotated()):
            os.ftruncate(self._fd, 0)  # begun behind the saved place
        elif mark.get("inode") == state.st_ino and state.st_size > mark["size"]:
            os.ftruncate(self._fd, mark["size"])
        elif mark.get("inode") == state.st_ino and state.st_size < mark["size"]:
            _log.warning(
                "file is shorter than before: another program removed lines",
                sink=self._sink.name, path=str(self._path),
                missing_bytes=mark["size"] - state.st_size,
            )  # fmt: skip
        self._size = os.fstat(self._fd).st_size
        self._opened_s = float(mark.get("opened_s", 0)) if self._size else 0.0
        self._opened_s = self._opened_s or self._now()

    def _open_file(self) -> int:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR)) from error
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        mode = int(self._sink.permissions, 8)
        fd = os.open(self._path, flags, mode)
        os.fchmod(fd, mode)  # not narrowed by the umask
        return fd

    def _append(self, data: bytes) -> None:
        at = 0
        try:
            while at < len(data):
                at += os.write(self._fd, memoryview(data)[at:])
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += at

    def _sync(self) -> dict[str, Any]:
        os.fdatasync(self._fd)
        return {
            "inode": os.fstat(self._fd).st_ino,
            "size": self._size,
            "opened_s": self._opened_s,
        }

    def _is_due(self) -> bool:
        sink = self._sink
        if not self._size:
            return False
        too_old = bool(sink.rotation_interval) and (
            self._now() - self._opened_s >= sink.rotation_interval
        )
        return too_old or 0 < sink.max_size <= self._size

    # Only behind `mark`: the saved place is the end of the old file. If we die before the next one
    # is saved, all that is in the new file is behind it, and `_open` empties it.
    def _rotate(self) -> None:
        target = self._rotated_name()
        os.rename(self._path, target)
        os.close(self._fd)
        self._fd = -1
        self._fd = self._open_file()
        self._size, self._opened_s = 0, self._now()
        sync_folder(self._path.parent)

    def _rotated_name(self) -> Path:
        time_s = self._now()
        while True:
            text = datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]
            target = self._path.with_name(f"{self._path.stem}-{text}{self._path.suffix}")
            if not target.exists() and not Path(f"{target}.gz").exists():
                return target
            time_s += 0.001

    def _rotated(self) -> list[Path]:
        stem, suffix = f"{self._path.stem}-", self._path.suffix
        return sorted(
            one
            for one in self._path.parent.iterdir()
            if one.name.startswith(stem)
            and one.name.removesuffix(".gz").endswith(suffix)
            and _is_time(one.name.removesuffix(".gz").removeprefix(stem).removesuffix(suffix))
        )

    def _remove_old(self) -> None:
        most = self._sink.max_backups
        if most:
            for old in self._rotated()[:-most]:
                with suppress(FileNotFoundError):
                    old.unlink()

    def _tidy_soon(self) -> None:
        if self._tidying is None or self._tidying.done():
            self._tidying = asyncio.create_task(self._tidy_in_thread())

    async def _tidy_in_thread(self) -> None:
        try:
            await asyncio.to_thread(self._tidy)
        except OSError as error:
            _log.warning(
                "rotated files not compressed or removed", path=str(self._path), error=str(error)
            )

    # Old files first: on a full disk that makes the room which compressing takes.
    def _tidy(self) -> None:
        self._remove_old()
        for one in self._rotated():
            if one.suffix == ".gz" or not self._sink.compress:
                continue
            unfinished = Path(f"{one}.gz.new")
            try:
                _compress(one, unfinished)
            except OSError:
                unfinished.unlink(missing_ok=True)
                raise
            os.rename(unfinished, f"{one}.gz")
            one.unlink()


def _compress(path: Path, to: Path) -> None:
    with path.open("rb") as plain, to.open("wb") as raw:
        os.fchmod(raw.fileno(), stat.S_IMODE(os.fstat(plain.fileno()).st_mode))
        with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)
        raw.flush()
        os.fsync(raw.fileno())


def _part_bytes(sink: FileSink) -> int:
    # A file is rotated where the place is kept. JSON takes about twice the bytes of the stream.
    return min(PART_BYTES, sink.max_size // 16 or PART_BYTES)


def _is_time(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y-%m-%dT%H-%M-%S.%f")
    except ValueError:
        return False
    return True
