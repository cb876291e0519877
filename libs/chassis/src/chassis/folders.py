"""Folders and files for state that are ours: no other user's, and no link to elsewhere.

Services run as root. In a folder of another user, that user could replace a file by a link, and
root would write to where it leads.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from chassis.errors import ServiceError

_GROUP_OR_OTHERS = 0o022


def make_own(folder: Path) -> None:
    """Make ``folder`` where it is missing, and check it and what is directly in it.

    Raises `ServiceError` where something there is a link, belongs to another user, or may be
    changed by others; `OSError` where the folder cannot be made or read.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (FileExistsError, NotADirectoryError):
        raise ServiceError(f"state: {folder}: a file is there, not a folder") from None
    _check(folder, os.lstat(folder))
    with os.scandir(folder) as entries:
        for entry in entries:
            _check(folder / entry.name, entry.stat(follow_symlinks=False))


def open_own(path: Path, *, append: bool = False) -> int:
    """Return a descriptor to write ``path``, made with mode 600 or emptied unless ``append``.

    Raises `ServiceError` where it is a link or belongs to another user, else `OSError`.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_APPEND * append)
    try:
        fd = os.open(path, flags, 0o600)
    except OSError:
        if path.is_symlink():  # ELOOP, from O_NOFOLLOW
            raise ServiceError(f"state: {path}: is a link: remove it") from None
        raise
    try:
        state = os.fstat(fd)
        _check(path, state)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
            raise ServiceError(f"state: {path}: is not a file of this folder alone: remove it")
        if not append:
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def write_own(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as `open_own` opens it."""
    with os.fdopen(open_own(path), "w") as file:
        file.write(text)


def replace_durably(path: Path, data: bytes) -> None:
    """Replace ``path`` atomically by a file with ``data``, synced.

    Raises as `open_own`, which opens the new file.
    """
    new = path.with_name(f"{path.name}.new")
    with os.fdopen(open_own(new), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable; raise `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(path: Path, state: os.stat_result) -> None:
    if stat.S_ISLNK(state.st_mode):
        raise ServiceError(f"state: {path}: is a link: remove it, or use another folder")
    if state.st_uid != os.geteuid():
        raise ServiceError(
            f"state: {path}: belongs to user {_user(state.st_uid)}, not to {_user(os.geteuid())}: "
            "use another folder"
        )
    if state.st_mode & _GROUP_OR_OTHERS:
        raise ServiceError(f"state: {path}: others may change it: chmod go-w {path}")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
