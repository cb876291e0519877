"""Processes older than the probes, read from /proc once at start."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import NamedTuple

from collector.records.layouts import Credentials, Namespaces

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
NO_LOGIN_UID = 0xFFFFFFFF
_READ_BYTES = 1 << 16
_STATUS = re.compile(rb"^(Uid|Gid|NSpid|CapInh|CapPrm|CapEff):\t(.*)$", re.MULTILINE)


class ProcfsProcess(NamedTuple):
    """A process as /proc shows it."""

    pid: int
    parent_pid: int
    start_ns: int  # boot clock, a multiple of one tick (10 ms)
    arg_start: int  # address of the arguments: changes with each exec; 0 for kernel threads
    comm: str
    exe: bytes  # target of the link, maybe with " (deleted)"; empty where there is none
    cmdline: bytes  # each argument with its NUL; empty for kernel threads and zombies
    cwd: bytes | None  # None: unreadable
    euid: int
    credentials: Credentials  # without securebits, which /proc does not show
    auid: int
    cgroup: str  # text of /proc/PID/cgroup
    nspid: int
    namespaces: Namespaces
    environ: bytes
    sessionid: int = NO_LOGIN_UID  # of the login; the same number means that there is none


def host_namespaces(root: Path) -> Namespaces:
    """Return pid 1's namespaces; those that are unreadable are replaced by our own."""
    first, own = _namespaces(f"{root}/1"), _namespaces(f"{root}/self")
    return Namespaces(*(a or b for a, b in zip(first, own, strict=True)))


def _namespaces(proc: str) -> Namespaces:
    """Return the inode numbers of a process's namespaces, 0 where unreadable."""
    return Namespaces(*(_namespace(f"{proc}/ns/{name}") for name in Namespaces._fields))


def _namespace(link: str) -> int:
    try:
        return int(os.readlink(link).split("[")[1].rstrip("]"))
    except (OSError, IndexError, ValueError):
        return 0


# A start reads some 20 files of each process: plain calls cost a third of what `pathlib` does.
def _read(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.read(file, _READ_BYTES)
        part = found
        while part:
            part = os.read(file, _READ_BYTES)
            found += part
    finally:
        os.close(file)
    return found


def _stat(proc: str) -> tuple[int, int, int]:
    """Return (parent pid, start in ns, arg_start): fields 4, 22 and 48 of /proc/PID/stat."""
    fields = _read(f"{proc}/stat").rpartition(b")")[2].split()
    # fields[0] is field 3: the name in parentheses may hold anything.
    return int(fields[1]), int(fields[19]) * _TICK_NS, int(fields[45])


def start_and_args(root: Path, pid: int) -> tuple[int, int] | None:
    """Return (start in ns, arg_start) of a living process, or None. They identify an image."""
    try:
        _, start, arg_start = _stat(f"{root}/{pid}")
    except (OSError, ValueError, IndexError):
        return None
    return start, arg_start


def read_process(root: Path, pid: int, *, environment: bool = False) -> ProcfsProcess | None:
    """Return the process ``pid`` from /proc; None if it has ended."""
    proc = f"{root}/{pid}"
    try:
        cmdline = _read(f"{proc}/cmdline")
        comm = _read(f"{proc}/comm").decode(errors="replace").rstrip("\n")
        parent_pid, start, arg_start = _stat(proc)
        status = dict(_STATUS.findall(_read(f"{proc}/status")))
    except (OSError, ValueError, IndexError):
        return None
    uids, gids = status[b"Uid"].split(), status[b"Gid"].split()
    exe, cwd, cgroup, environ = b"", None, "", b""
    auid = sessionid = NO_LOGIN_UID
    with contextlib.suppress(OSError):
        exe = os.readlink(os.fsencode(f"{proc}/exe"))
    with contextlib.suppress(OSError):
        cwd = os.readlink(os.fsencode(f"{proc}/cwd"))
    with contextlib.suppress(OSError, ValueError):
        auid = int(_read(f"{proc}/loginuid"))
        sessionid = int(_read(f"{proc}/sessionid"))
    with contextlib.suppress(OSError):
        cgroup = _read(f"{proc}/cgroup").decode(errors="replace")
    if environment:
        with contextlib.suppress(OSError):
            environ = _read(f"{proc}/environ")
    return ProcfsProcess(
        pid=pid,
        parent_pid=parent_pid,
        start_ns=start,
        arg_start=arg_start,
        comm=comm,
        exe=exe,
        cmdline=cmdline,
        cwd=cwd,
        euid=int(uids[1]),
        credentials=Credentials(
            uid=int(uids[0]),
            gid=int(gids[0]),
            euid=int(uids[1]),
            egid=int(gids[1]),
            suid=int(uids[2]),
            sgid=int(gids[2]),
            fsuid=int(uids[3]),
            fsgid=int(gids[3]),
            permitted=int(status.get(b"CapPrm", b"0"), 16),
            effective=int(status.get(b"CapEff", b"0"), 16),
            inheritable=int(status.get(b"CapInh", b"0"), 16),
        ),
        auid=auid,
        cgroup=cgroup,
        nspid=int(status.get(b"NSpid", b"0").split()[-1]),
        namespaces=_namespaces(proc),
        environ=environ,
        sessionid=sessionid,
    )


def read_all(root: Path, *, environment: bool = False) -> list[ProcfsProcess]:
    """Return every process that /proc shows, in the order of its parents' pids."""
    found = (
        read_process(root, int(name), environment=environment)
        for name in sorted(os.listdir(root))
        if name.isdecimal()
    )
    return sorted((p for p in found if p is not None), key=lambda p: p.parent_pid)
