"""Probes that outlive the collector: their maps and links have names in a BPF file system.

    <pin_dir>/<node>/<build>-<since>/        a map or a link each:
        events processes lost exec_stages sched_process_fork sched_process_exec ...

A link with a name stays attached when its process ends. While no collector runs, the probes keep
filling the ring and count the records that it has no room for. The next collector takes them over
if they are exactly those that it would load itself, and if it knows the position up to which the
last one had read.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import structlog

from collector.bpf import maps
from collector.bpf.probes import Probes
from collector.errors import SecondCollector

log = structlog.get_logger()


def build_id(folder: Path, flags: list[str]) -> str:
    """Return what distinguishes a build of the probes: the hash of sources and flags."""
    digest = hashlib.sha256("\0".join(flags).encode())
    for path in sorted((*folder.glob("process/*.c"), *folder.glob("lib/*.h"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@dataclass(slots=True)
class Pins:
    """The kept probes of one node."""

    pin_dir: Path
    node_name: str
    build: str
    _lock: int = -1

    @property
    def _folder(self) -> Path:
        # The file system takes no dots. The checksum distinguishes names that are then equal.
        name = re.sub(r"[^A-Za-z0-9_-]", "_", self.node_name)[:64]
        return self.pin_dir / f"{name}-{zlib.crc32(self.node_name.encode()):08x}"

    def lock(self, *, make: bool) -> None:
        """Make sure that no other collector uses them, in any network namespace.

        ``make``: create the folder, because probes will be kept. Without it, or without a BPF file
        system, there may be nothing to lock.
        """
        if not make and not self._folder.exists():
            return
        try:
            self._folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            self._lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SecondCollector(
                f"node {self.node_name}: another collector uses {self._folder}: stop it first"
            ) from None
        except OSError as error:
            log.debug("no kept probes", folder=str(self._folder), error=error.strerror)

    def keep(self, opened: Probes, since_ns: int) -> None:
        """Pin everything; if that fails, log the reason: the probes then end with this process."""
        folder = self._folder / f"{self.build}-{since_ns}"
        try:
            folder.mkdir(parents=True, mode=0o700)
            for name, fd in opened.fds().items():
                maps.pin(fd, folder / name)
        except OSError as error:
            log.warning(
                "probes not kept: they end with this collector",
                file=str(error.filename or folder),
                error=error.strerror,
                hint=f"mount -t bpf bpf {self.pin_dir.parent}; Linux 5.8 or newer",
            )
            self.remove()
            return
        log.info("probes kept", folder=str(folder))

    def take(self, since_ns: int, ring_size_bytes: int) -> Probes | None:
        """Return the probes of this build that were attached at ``since_ns``, if they are there."""
        folder = self._folder / f"{self.build}-{since_ns}"
        fds: dict[str, int] = {}
        try:
            for path in sorted(folder.iterdir()):
                fds[path.name] = maps.open_pinned(path)
            return Probes.of(fds, ring_size_bytes)
        except FileNotFoundError:
            return None
        except (OSError, KeyError) as error:  # keeping them was not finished
            for fd in fds.values():
                os.close(fd)
            log.warning("kept probes unusable", folder=str(folder), error=str(error))
            return None

    def found(self) -> list[Path]:
        """Return the folders of all kept probes of this node."""
        try:
            return sorted(self._folder.iterdir())
        except OSError:
            return []

    def remove(self) -> list[Path]:
        """Unpin all kept probes of this node, which detaches those that no process holds."""
        folders = self.found()
        for folder in folders:
            try:
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
            except OSError as error:
                log.warning("kept probes not removed", folder=str(folder), error=str(error))
        return folders

    def close(self) -> None:
        """Release the lock and delete empty folders."""
        for folder in (self._folder, self.pin_dir):
            try:
                folder.rmdir()
            except OSError:
                break  # not empty, or not there
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
