"""The cgroups of containers, as the unified hierarchy has them now and whenever they change.

inotify reports a new cgroup when the engine has made it: before the container's first process. A
file system that is changed by the kernel alone (an empty cgroup that is removed) reports nothing;
such a cgroup has no processes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import structlog
from asyncinotify import Event, Inotify, Mask

from collector.errors import ProbeError
from collector.metadata.cgroups import container_in

_ROOT_INODE = 1  # kernfs_create_root, in fs/kernfs/dir.c: ids begin there
_WATCHED = Mask.CREATE | Mask.DELETE | Mask.MOVED_TO | Mask.ONLYDIR

log = structlog.get_logger()


class Cgroup(NamedTuple):
    """A cgroup of a container, or below one."""

    id: int  # bpf_get_current_cgroup_id() of its processes
    container_id: str
    parts: tuple[str, ...]  # of its path


class CgroupTree:
    """Reports the cgroups of containers to ``found``, and those that are gone to ``gone``."""

    def __init__(
        self, root: Path, found: Callable[[Cgroup], None], gone: Callable[[int], None]
    ) -> None:
        self._root = root
        self._found = found
        self._gone = gone
        self._ids: dict[Path, int] = {}
        self._inotify: Inotify | None = None
        self._full = False

    def start(self) -> None:
        """Report what is there, then follow changes in a thread; raise `ProbeError`."""
        try:
            self._inotify = Inotify()
            self._look(self._root)
        except OSError as error:
            raise ProbeError(
                f"policies: watch cgroups: {self._root}: {error.strerror or error}"
            ) from None
        threading.Thread(target=self._follow, name="cgroups", daemon=True).start()

    def _follow(self) -> None:
        assert self._inotify is not None
        for event in self._inotify:
            try:
                self._handle(event)
            except OSError as error:  # gone again
                log.debug("cgroup not read", error=str(error))

    def _handle(self, event: Event) -> None:
        if Mask.Q_OVERFLOW in event.mask:
            self._look(self._root)
            return
        if event.path is None or Mask.ISDIR not in event.mask:
            return
        if Mask.DELETE in event.mask:
            number = self._ids.pop(event.path, None)
            if number is not None:
                self._gone(number)
        else:
            self._look(event.path)

    def _look(self, folder: Path) -> None:
        """Watch ``folder``, and report it and what is below it."""
        for path, number in self._below(folder):
            parts = path.relative_to(self._root).parts
            container_id = container_in(parts)
            if container_id:
                self._ids[path] = number
                self._found(Cgroup(number, container_id, parts))

    def _below(self, folder: Path) -> Iterator[tuple[Path, int]]:
        """Yield the cgroups at and below ``folder``; each is watched before it is read."""
        waiting = [folder]
        while waiting:
            path = waiting.pop()
            try:
                self._watch(path)
                yield path, os.stat(path).st_ino
                with os.scandir(path) as entries:
                    waiting += [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
            except FileNotFoundError:
                continue

    def _watch(self, path: Path) -> None:
        assert self._inotify is not None
        try:
            self._inotify.add_watch(path, _WATCHED)
        except FileNotFoundError:
            raise
        except OSError as error:  # fs.inotify.max_user_watches
            if not self._full:
                self._full = True
                log.error(
                    "new containers not followed: raise fs.inotify.max_user_watches",
                    cgroup=str(path), error=error.strerror,
                )  # fmt: skip


def unified_root(procfs: Path) -> Path:
    """Return the host's unified hierarchy; raise `ProbeError` where none is mounted.

    Found in pid 1's mounts, since a container has mounts of its own; or in a mount of the host's
    that was given to the container.
    """
    seen = ""
    for process, prefix in (("1", procfs / "1/root"), ("self", Path("/"))):
        try:
            lines = (procfs / process / "mountinfo").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            fields, _, kind = line.partition(" - ")
            if not kind.startswith("cgroup2 "):
                continue
            mounted = fields.split()[4]
            path = prefix / mounted.lstrip("/")
            if _is_root(path):
                return path
            seen = mounted
    reason = f"{seen} shows a part of it" if seen else "none is mounted"
    raise ProbeError(
        f"policies: find the host's unified cgroup hierarchy: {reason}; filters on containers need "
        "it (cgroup v2), and the host's pid namespace"
    )


def _is_root(path: Path) -> bool:
    """Return whether the top of a hierarchy is mounted there, as the host sees it.

    What mountinfo shows depends on the reader's cgroup namespace: "/../.." in a pod.
    """
    try:
        return os.stat(path).st_ino == _ROOT_INODE
    except OSError:
        return False
