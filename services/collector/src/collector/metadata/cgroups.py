"""From the path of a cgroup to the container or systemd unit of its processes.

The kernel's record has the last component of the path, which is enough for a process that runs
directly in the cgroup of its container. For others the path is read from /proc, once per cgroup.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from collector.metadata.users import Users
from collector.processes.pods import HostUnit
from collector.records import text

_CACHED_MAX = 10_000
# As engines name cgroups: the id alone, or behind "docker-", "cri-containerd-", "crio-", "libpod-",
# and with the systemd driver before ".scope".
_CONTAINER = re.compile(r"(?:.*[-:])?([0-9a-f]{64})(?:\.scope)?")
# The monitor of a container: CRI-O and Podman put it beside the container, under its id.
_MONITOR = re.compile(r"(?:crio|libpod)-conmon-")
_UNIT = re.compile(r".+\.(?:service|scope|socket|mount|swap)")
_SESSION = re.compile(r"session-(.+)\.scope")
_USER_SLICE = re.compile(r"user-(\d+)\.slice")
_USER_MANAGER = re.compile(r"user@(\d+)\.service")
_SYSTEMD = "run/systemd/system"  # exists where systemd is the init system: sd_booted(3)


class Place(NamedTuple):
    """Where a process runs."""

    container_id: str = ""  # its first characters where the kernel cut the path
    is_monitor: bool = False  # of the container, not in it
    unit: HostUnit | None = None


HOST = Place()


class Cgroups:
    """Places of processes by their cgroup."""

    def __init__(self, procfs: Path, users: Users) -> None:
        self._procfs = procfs
        self._users = users
        self._places: dict[tuple[int, str], Place] = {}
        # Pid 1's root is the host's, also from a container. os.path: False where it is not allowed.
        self._has_systemd = os.path.isdir(procfs / "1/root" / _SYSTEMD)

    def of_record(self, cgroup_id: int, leaf: str, pid: int, parent_pid: int = 0) -> Place:
        """Return the place of an image that ``pid`` began; ``leaf`` ends its cgroup's path.

        Where the process has ended, the path is that of its parent, if the parent's ends alike.
        """
        full_id = text.full_container_id(leaf)
        if full_id:
            return Place(full_id, is_monitor=bool(_MONITOR.match(leaf)))
        if leaf in ("", "/") and not self._has_systemd:
            return HOST
        found = self._places.get((cgroup_id, leaf))
        if found is not None:
            return found
        place = self._read(cgroup_id, leaf, pid)
        if place is None and parent_pid and leaf not in ("", "/"):
            place = self._read(cgroup_id, leaf, parent_pid, same_leaf=True)
        return place or Place(unit=self._unit([leaf]))

    def _read(
        self, cgroup_id: int, leaf: str, pid: int, *, same_leaf: bool = False
    ) -> Place | None:
        """Return the place of ``pid``; None if it has ended.

        ``same_leaf``: None also where no path of it ends in ``leaf``.
        """
        try:  # without pathlib, which takes longer than the file
            with open(f"{self._procfs}/{pid}/cgroup", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError:
            return None
        paths = [line.split(":", 2)[-1] for line in lines]
        # The process may have moved since, and the root's processes differ in other hierarchies.
        ends_so = any(path.rpartition("/")[2] == leaf for path in paths)
        if same_leaf and not ends_so:
            return None
        place = self._place(paths)
        if ends_so and leaf not in ("", "/"):
            if len(self._places) >= _CACHED_MAX:
                self._places.clear()
            self._places[cgroup_id, leaf] = place
        return place

    def of_procfs(self, cgroup_file: str) -> Place:
        """Return the place from /proc/PID/cgroup."""
        full_id = text.procfs_container_id(cgroup_file)
        if full_id and "-conmon-" not in cgroup_file:
            return Place(full_id)
        return self._place([line.split(":", 2)[-1] for line in cgroup_file.splitlines()])

    def _place(self, paths: Iterable[str]) -> Place:
        unit = None
        for path in paths:
            parts = path.split("/")
            if _MONITOR.match(parts[-1]):
                return Place(text.full_container_id(parts[-1]), is_monitor=True)
            if full_id := container_in(parts):
                return Place(full_id)
            unit = unit or self._unit(parts)
        return Place(unit=unit)

    def _unit(self, parts: list[str]) -> HostUnit | None:
        return host_unit(parts, self._users) if self._has_systemd else None


def container_in(parts: Iterable[str]) -> str:
    """Return the id of the innermost container that a path passes through; empty for none."""
    found = ""
    for part in parts:
        match = _CONTAINER.fullmatch(part)
        if match is not None and not _MONITOR.match(part):
            found = match[1]
    return found


def host_unit(parts: Iterable[str], users: Users) -> HostUnit | None:
    """Return the unit that a path names: below slices, the first component that is a unit."""
    rest = iter(parts)
    slices, unit = _below_slices(rest)
    if not unit:
        return None
    session, manager = _SESSION.fullmatch(unit), _USER_MANAGER.fullmatch(unit)
    owner = manager or (session and _USER_SLICE.fullmatch(slices))
    return HostUnit(
        unit=unit,
        slice=slices,
        user_unit=_below_slices(rest)[1] if manager else "",
        session=session[1] if session else "",
        session_user=users.name(int(owner[1])) or owner[1] if owner else "",
    )


def _below_slices(parts: Iterable[str]) -> tuple[str, str]:
    """Return the innermost slice and the unit in it."""
    inner = ""
    for part in parts:
        if part.endswith(".slice"):
            inner = part
        elif part not in ("", ".."):
            return inner, part if _UNIT.fullmatch(part) else ""
    return inner, ""
