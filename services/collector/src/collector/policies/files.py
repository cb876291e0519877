"""Policy documents on disk: one file, and a folder with its immediate sub-folders.

inotify only triggers a scan; the scan decides. So a file system without events
(NFS, some bind mounts) and an overflown event queue only make a change take longer. A file that is
still being written is not read: it is read when its writer has closed it, or, without events, when
two consecutive scans find it unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog
from asyncinotify import Inotify, Mask

LARGEST_BYTES = 1 << 20
_SETTLE_S = 0.02
_LOOK_EVERY_S = 5.0  # scan interval without events
_WRITING_MAX_S = 2.0  # longest wait for a writer to close its file
_WATCHED = (
    Mask.MODIFY | Mask.CLOSE_WRITE | Mask.MOVE | Mask.CREATE | Mask.DELETE
    | Mask.DELETE_SELF | Mask.MOVE_SELF
)  # fmt: skip

log = structlog.get_logger()


class Document(NamedTuple):
    """A file that should hold one policy; ``error`` says why it was not read."""

    path: Path
    text: str
    error: str = ""


class _Signature(NamedTuple):
    inode: int
    size: int
    mtime_ns: int


class PolicyFiles:
    """The documents of a node, as they are now and whenever they change."""

    def __init__(
        self,
        folder: Path | None = None,
        files: Sequence[Path] = (),
        ready_made: Sequence[Document] = (),
    ) -> None:
        """``ready_made``: documents that settings name; they do not change."""
        self._folder = folder
        self._ready_made = tuple(ready_made)
        self._files = tuple(files)
        self._read: dict[Path, tuple[_Signature, Document]] = {}
        self._writing: set[Path] = set()  # modified since they were last closed

    def documents(self) -> tuple[Document, ...]:
        """Return the current documents: the folder's by path, single files, ready-made ones."""
        return self._documents(self._look())

    def _documents(self, found: dict[Path, _Signature]) -> tuple[Document, ...]:
        read = tuple(self._document(path, signature) for path, signature in found.items())
        return read + self._ready_made

    async def changes(self) -> AsyncGenerator[tuple[Document, ...], None]:
        """Yield all documents now, and again after each change."""
        with Inotify() as inotify:
            before: tuple[Document, ...] | None = None
            while True:
                self._watch(inotify)
                found = await self._settled()
                now = self._documents(found)
                if now != before:
                    before = now
                    yield now
                await self._events(inotify)

    async def _events(self, inotify: Inotify) -> None:
        """Wait for an event, then until following events have arrived and files are closed."""
        loop = asyncio.get_running_loop()
        wait_s, until_s = _LOOK_EVERY_S, 0.0
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(wait_s):
                    event = await inotify.get()
                if event.path is not None:
                    if event.mask & Mask.MODIFY:
                        self._writing.add(event.path)
                    else:
                        self._writing.discard(event.path)
                until_s = until_s or loop.time() + _WRITING_MAX_S
                left_s = until_s - loop.time()
                if left_s <= 0:
                    break
                wait_s = left_s if self._writing else min(_SETTLE_S, left_s)
        self._writing.clear()

    async def _settled(self) -> dict[Path, _Signature]:
        found = self._look()
        while True:
            changed = any(
                path not in self._read or self._read[path][0] != one for path, one in found.items()
            )
            if not changed:
                return found
            await asyncio.sleep(_SETTLE_S)
            again = self._look()
            if again == found:
                return found
            found = again

    def _look(self) -> dict[Path, _Signature]:
        found: dict[Path, _Signature] = {}
        if self._folder is not None:
            _add_folder(found, self._folder, deep=True)
        for path in self._files:
            found[path] = _signature(path) or _Signature(0, 0, 0)  # a missing one is reported
        for path in self._read.keys() - found.keys():
            del self._read[path]
        return found

    def _document(self, path: Path, signature: _Signature) -> Document:
        known = self._read.get(path)
        if known is None or known[0] != signature:
            known = self._read[path] = signature, _read(path)
        return known[1]

    def _watch(self, inotify: Inotify) -> None:
        """Watch every folder that is there, or the nearest one above it."""
        wanted = {path.parent for path in self._files}
        if self._folder is not None:
            wanted.add(self._folder)
            with contextlib.suppress(OSError):
                wanted |= {Path(one.path) for one in os.scandir(self._folder) if _is_shown(one)}
        for folder in wanted:
            while not folder.is_dir() and folder != folder.parent:
                folder = folder.parent
            # Adding a watch twice is harmless: the kernel identifies a folder by its inode.
            with contextlib.suppress(OSError):
                inotify.add_watch(folder, _WATCHED)


def _is_shown(entry: os.DirEntry[str]) -> bool:
    # Hidden folders are those of a Kubernetes volume, whose links beside them lead to the files.
    return not entry.name.startswith(".") and entry.is_dir()


def _add_folder(found: dict[Path, _Signature], folder: Path, *, deep: bool) -> None:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if deep and _is_shown(entry):
            _add_folder(found, path, deep=False)
        elif signature := _signature(path):
            found[path] = signature


def _signature(path: Path) -> _Signature | None:
    """Return what differs between two states of a file; None if it is not a regular file."""
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return _Signature(status.st_ino, status.st_size, status.st_mtime_ns)


def _read(path: Path) -> Document:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
        if len(data) > LARGEST_BYTES:
            return Document(path, "", f"larger than {LARGEST_BYTES} bytes")
        return Document(path, data.decode())
    except UnicodeDecodeError as error:
        return Document(path, "", f"byte {error.start} is not UTF-8")
    except OSError as error:
        return Document(path, "", (error.strerror or str(error)).lower())
