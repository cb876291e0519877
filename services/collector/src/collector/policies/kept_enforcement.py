"""Enforcement that outlives the collector: links of policies that act have names in a BPF file
system.

    <pin_dir>/enforcement-<node>/<start>/    a link or a map each

A link with a name stays attached when its process ends, and so do the modes of its policy. The next
collector loads its policies first and then removes the names of the last one: so policies of files
are in effect at every moment. The events of kept programs are not read meanwhile.
"""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from collector.bpf import maps

log = structlog.get_logger()


def folder_of(pin_dir: Path, node_name: str) -> Path:
    """Return the folder of a node; the file system takes no dots."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", node_name)[:64]
    return pin_dir / f"enforcement-{name}-{zlib.crc32(node_name.encode()):08x}"


@dataclass(slots=True)
class KeptEnforcement:
    """Owns the names that this collector gives."""

    folder: Path
    enabled: bool
    _own: Path = field(init=False)
    _names: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._own = self.folder / str(time.time_ns())

    def keep(self, wanted: Mapping[str, int]) -> None:
        """Give names to exactly these descriptors."""
        if not self.enabled:
            return
        with self._lock:
            for name in self._names - wanted.keys():
                (self._own / name).unlink(missing_ok=True)
            self._names &= wanted.keys()
            try:
                self._own.mkdir(parents=True, mode=0o700, exist_ok=True)
                for name in wanted.keys() - self._names:
                    maps.pin(wanted[name], self._own / name)
                    self._names.add(name)
            except OSError as error:
                log.warning(
                    "enforcement not kept: it ends with this collector",
                    file=str(error.filename or self._own),
                    error=error.strerror,
                    hint=f"mount -t bpf bpf {self.folder.parent.parent}; Linux 5.15 or newer",
                )

    def remove_earlier(self) -> None:
        """Remove the links that earlier collectors of this node have kept."""
        self._remove([one for one in self._found() if one != self._own])

    def remove(self) -> list[Path]:
        """Remove everything that is kept for this node; return the folders."""
        with self._lock:
            found = self._found()
            self._remove(found)
            self._names.clear()
        return found

    def _found(self) -> list[Path]:
        try:
            return sorted(self.folder.iterdir())
        except OSError:
            return []

    def _remove(self, folders: list[Path]) -> None:
        for one in folders:
            try:
                for path in one.iterdir():
                    path.unlink()
                one.rmdir()
            except OSError as error:
                log.warning("kept enforcement not removed", folder=str(one), error=str(error))
            else:
                log.info("kept enforcement ended", folder=str(one))
        for one in (self.folder, self.folder.parent):
            try:
                one.rmdir()
            except OSError:
                break  # not empty, or not there
