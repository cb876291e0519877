"""Are the type offsets this kernel's? Asked when they came from a file that somebody chose.

A wrong offset does no harm in the kernel, it makes events lie. BTF does not say which kernel it
is of, so the probes are held against a process whose truth we know: a child of ours, and what
/proc tells of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from collector.bpf.ring import Ring
from collector.errors import DecodeError, KernelError
from collector.records.process import NS_MNT, NS_USER, Decoder, ExecRecord, ExitRecord

_TOLD_WITHIN_S = 10.0
_EXIT_CODE = 7
_POLL_S = 0.01


def verify(ring: Ring, btf: Path, folder: Path) -> list[bytes]:
    """Raise `KernelError` unless the probes tell the truth about a child.

    ``folder`` is the child's directory. Returns the records that were read on the way: they are
    the pipeline's.
    """
    token = uuid4().hex
    # Isolated and without site: as quick as Python starts. It lives until its input is closed.
    argv = [
        sys.executable, "-I", "-S", "-c", f"import sys; sys.stdin.read(); sys.exit({_EXIT_CODE})",
        token,
    ]  # fmt: skip
    records: list[bytes] = []
    with subprocess.Popen(
        argv, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        truth = dict(_truth(child.pid, argv, folder))
    told = _told(ring, token.encode(), records)
    for what, value in truth.items():
        if what not in told:
            raise _mismatch(btf, "a process that we started was not told, or not as itself")
        if told[what] != value:
            raise _mismatch(btf, f"{what} of a process reads {told[what]!r}, and is {value!r}")
    return records


def _mismatch(btf: Path, why: str) -> KernelError:
    return KernelError(
        f"btf: {btf}: not the types of this kernel ({os.uname().release}): {why}: give the BTF of "
        "exactly this kernel build"
    )


def _truth(pid: int, argv: list[str], folder: Path) -> Iterator[tuple[str, object]]:
    proc = Path("/proc") / str(pid)
    # Behind the name, which may have spaces, from field 3 on: proc(5).
    stat = (proc / "stat").read_text().rpartition(")")[2].split()
    yield "pid", pid
    yield "parent", os.getpid() if _in_host_namespace() else None
    yield "uids", (os.getuid(), os.geteuid(), os.getgid(), os.getegid())
    yield "binary", os.fsencode(argv[0])
    yield "arguments", b"".join(os.fsencode(word) + b"\0" for word in argv)
    yield "directory", os.fsencode(folder.resolve())
    yield "start time", int(stat[22 - 3])
    yield "start of arguments", int(stat[48 - 3])
    yield "mount namespace", (proc / "ns" / "mnt").stat().st_ino
    yield "user namespace", (proc / "ns" / "user").stat().st_ino
    yield "exit code", _EXIT_CODE


def _in_host_namespace() -> bool:
    # PROC_PID_INIT_INO, include/linux/proc_ns.h: elsewhere our pids are not the kernel's own.
    return Path("/proc/self/ns/pid").stat().st_ino == 0xEFFFFFFC


def _told(ring: Ring, token: bytes, records: list[bytes]) -> dict[str, object]:
    """Return what the probes tell of the process with ``token``, once it has ended, or in part."""
    decoder = Decoder()
    told: dict[str, object] = {}
    pid = None
    ticks = os.sysconf("SC_CLK_TCK")
    deadline = time.monotonic() + _TOLD_WITHIN_S
    while "exit code" not in told and time.monotonic() < deadline:
        batch = ring.drain()
        records += batch
        for data in batch:
            try:
                record = decoder.decode(data)
            except DecodeError:  # nonsense is what wrong offsets make
                continue
            if isinstance(record, ExecRecord) and token in record.args:
                pid = record.pid
                own = record.credentials
                told = {
                    "pid": record.nspid,
                    "parent": record.parent_pid if _in_host_namespace() else None,
                    "uids": (own.uid, own.euid, own.gid, own.egid),
                    "binary": record.filename,
                    "arguments": record.args,
                    "directory": record.cwd,
                    "start time": record.start_boottime_ns * ticks // 1_000_000_000,
                    "start of arguments": record.arg_start,
                    "mount namespace": record.ns[NS_MNT],
                    "user namespace": record.ns[NS_USER],
                }
            elif isinstance(record, ExitRecord) and record.pid == pid:
                told["exit code"] = record.exit_code >> 8
        if not batch:
            time.sleep(_POLL_S)
    return told
