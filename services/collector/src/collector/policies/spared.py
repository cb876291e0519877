"""Processes that no policy acts on: the first one, the collector, and the services of the stack.

Without them a policy could no longer be corrected. They are found in /proc by the name of their
program. Any user can start a program of that name, so the user has to be one that the stack runs
as, too. The kernel programs compare both as well (bpf/tracing/act.h), so a service is spared from
its start.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_INTERPRETER = "python"


@dataclass(frozen=True, slots=True)
class Spared:
    """Which processes are spared."""

    programs: frozenset[str]
    uids: frozenset[int]
    procfs: Path = Path("/proc")

    def find(self) -> dict[int, int]:
        """Return their process ids, each with its start in clock ticks since boot."""
        wanted = {1, own_pid(self.procfs)}
        wanted |= {
            int(entry.name)
            for entry in self.procfs.iterdir()
            if entry.name.isdecimal() and self._is_of_the_stack(entry)
        }
        found = {pid: _start_ticks(self.procfs / str(pid)) for pid in wanted}
        return {pid: ticks for pid, ticks in found.items() if ticks is not None}

    def _is_of_the_stack(self, folder: Path) -> bool:
        return _program(folder) in self.programs and _uids(folder) <= self.uids


def own_pid(procfs: Path = Path("/proc")) -> int:
    """Return this process's number in the pid namespace of ``procfs``."""
    try:
        return int(os.readlink(procfs / "self"))
    except (OSError, ValueError):
        return os.getpid()


def numbers_of(users: Iterable[str]) -> frozenset[int]:
    """Return the numbers of users; names that this host does not know are left out.

    The packages of Debian make the users of the gateway and of NATS, with numbers of their own.
    """
    found = set()
    for user in filter(None, users):
        if user.isdecimal():
            found.add(int(user))
        else:
            with suppress(KeyError):
                found.add(pwd.getpwnam(user).pw_uid)
    return frozenset(found)


def nothing_spared() -> dict[int, int]:
    """Return no process: the setting is off."""
    return {}


def _program(folder: Path) -> str:
    """Return the name of a process's program, for a script the script's; "" if it is not known."""
    try:
        name = os.path.basename(os.readlink(folder / "exe")).removesuffix(" (deleted)")
        if not name.startswith(_INTERPRETER):
            return name
        arguments = (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return os.path.basename(arguments[1]).decode(errors="replace") if len(arguments) > 1 else ""


def _uids(folder: Path) -> frozenset[int]:
    """Return real, effective, saved and file system user; the folder's owner can be another."""
    try:
        lines = (folder / "status").read_text().splitlines()
    except OSError:
        return frozenset({-1})
    line = next((one for one in lines if one.startswith("Uid:")), "Uid:\t-1")
    return frozenset(map(int, line.split()[1:]))


def _start_ticks(folder: Path) -> int | None:
    """Return field 22 of stat, counted from behind the name, which may hold anything."""
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
