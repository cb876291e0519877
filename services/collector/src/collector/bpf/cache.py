"""A cache folder of blobs: each is stored under the hash of its sources, and can be created again.

    <folder>/<key>.obj      magic, key, SHA-256 of the content, length, content

A blob is used only if this user owns folder and file, others cannot write them, and key and hash
match. Everything else counts as missing: the cache never prevents a start. Any number of collectors
may use one folder: files are renamed into place when they are complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct

import structlog

_MAGIC = b"TETRA\0\1\n"  # 1: the form of the file
_HEAD = Struct("<8s32s32sQ")
_SUFFIX = ".obj"
_PARTIAL = ".partial"
_PARTIAL_MAX_AGE_S = 600.0
BLOB_MAX_BYTES = 16 << 20
LIMIT_BYTES = 64 << 20  # sixty policies take 0.15 MB a kernel

log = structlog.get_logger()


def key_of(parts: Iterable[bytes | str]) -> bytes:
    """Return the key for what is made from these parts, in this order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


@dataclass(slots=True)
class BlobCache:
    """One cache folder, created when the first blob is written."""

    folder: Path
    limit_bytes: int = LIMIT_BYTES
    _warned: bool = field(default=False, init=False)

    def read(self, key: bytes) -> bytes | None:
        """Return the blob under ``key``, or None: missing, damaged, or not ours."""
        try:
            with self._open_folder() as folder:
                return self._read(folder, key)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(error)
            return None

    def write(self, key: bytes, content: bytes) -> None:
        """Store a blob and drop those unused for longest; log a warning if that fails."""
        try:
            self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            with self._open_folder() as folder:
                self._write(folder, key, content)
                self._evict(folder, key)
        except OSError as error:
            self._warn(error)

    @contextlib.contextmanager
    def _open_folder(self) -> Iterator[int]:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _check_owner(os.fstat(descriptor), "folder")
            yield descriptor
        finally:
            os.close(descriptor)

    def _read(self, folder: int, key: bytes) -> bytes | None:
        name = _name(key)
        with _opened(name, os.O_RDONLY, folder) as descriptor:
            found = os.fstat(descriptor)
            _check_owner(found, name)
            if found.st_size > BLOB_MAX_BYTES + _HEAD.size:
                raise OSError(0, "larger than a blob can be", name)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read()
            content = data[_HEAD.size :]
            head = _HEAD.pack(_MAGIC, key, hashlib.sha256(content).digest(), len(content))
            if data[: _HEAD.size] != head:
                log.warning("cached object damaged", folder=str(self.folder), file=name)
                return None
            with contextlib.suppress(OSError):  # when it was last used: see _evict
                os.utime(descriptor)
            return content

    def _write(self, folder: int, key: bytes, content: bytes) -> None:
        name, partial = _name(key), f"{_name(key)}.{os.getpid()}.{time.monotonic_ns()}{_PARTIAL}"
        head = _HEAD.pack(_MAGIC, key, hashlib.sha256(content).digest(), len(content))
        try:
            with _opened(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, folder) as descriptor:
                rest = memoryview(head + content)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(partial, dir_fd=folder)
            raise

    def _evict(self, folder: int, newest: bytes) -> None:
        """Delete the blobs unused for longest until the rest fits, and old temporary files."""
        files = []
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):  # another collector evicts too
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if name.endswith(_PARTIAL) and found.st_mtime < time.time() - _PARTIAL_MAX_AGE_S:
                    os.unlink(name, dir_fd=folder)
                elif name.endswith(_SUFFIX) and name != _name(newest):
                    files.append((found.st_mtime, found.st_size, name))
        total = sum(size for _, size, _ in files)
        for _, size, name in sorted(files):
            if total <= self.limit_bytes:
                break
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)
            total -= size

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "object cache not used",
                folder=str(self.folder),
                error=error.strerror or str(error),
                hint="a folder that belongs to this user, mode 0700",
            )


def _name(key: bytes) -> str:
    return key.hex()[:40] + _SUFFIX


@contextlib.contextmanager
def _opened(name: str, flags: int, folder: int) -> Iterator[int]:
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check_owner(found: os.stat_result, what: str) -> None:
    if found.st_uid != os.geteuid():
        raise PermissionError(0, f"the {what} belongs to user {found.st_uid}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(0, f"others can write the {what}")
