"""Checks that type offsets from a chosen BTF file are those of this kernel.

A wrong offset is harmless in the kernel, but makes events wrong. BTF does not contain the name of
its kernel, so the records of a child process are compared with /proc.
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
from collector.records.layouts import ExecRecord
from collector.records.process import EXEC, EXIT, ExecDecoder, decode_exit

_REPORTED_WITHIN_S = 10.0
_EXIT_CODE = 7
_POLL_S = 0.01


def verify(ring: Ring, btf: Path, folder: Path) -> list[bytes]:
    """Raise `KernelError` unless the records of a child process agree with /proc.

    ``folder`` is the child's directory. Returns the records that were read meanwhile, for the
    pipeline.
    """
    token = uuid4().hex
    # Isolated and without site, to start quickly. It runs until its input is closed.
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
    reported = _reported(ring, token.encode(), records)
    for what, value in truth.items():
        if what not in reported:
            raise _mismatch(btf, "a child process was not reported, or with other values")
        if reported[what] != value:
            raise _mismatch(btf, f"{what} of a process reads {reported[what]!r}, and is {value!r}")
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
    # PROC_PID_INIT_INO, include/linux/proc_ns.h: in other namespaces pids differ from the host's.
    return Path("/proc/self/ns/pid").stat().st_ino == 0xEFFFFFFC


def _reported(ring: Ring, token: bytes, records: list[bytes]) -> dict[str, object]:
    """Return the facts from the records of the process with ``token`` that have arrived."""
    decoder = ExecDecoder()
    reported: dict[str, object] = {}
    pid = None
    deadline = time.monotonic() + _REPORTED_WITHIN_S
    while "exit code" not in reported and time.monotonic() < deadline:
        batch = ring.drain()
        records += batch
        for data in batch:
            kind = int.from_bytes(data[:4], sys.byteorder)
            try:
                if kind == EXEC and token in (record := decoder.decode(data)).args:
                    pid = record.pid
                    reported = _facts(record)
                elif kind == EXIT and (ended := decode_exit(data)).pid == pid:
                    reported["exit code"] = ended.exit_code >> 8
            except DecodeError:  # wrong offsets make records malformed
                continue
        if not batch:
            time.sleep(_POLL_S)
    return reported


def _facts(record: ExecRecord) -> dict[str, object]:
    ticks = os.sysconf("SC_CLK_TCK")
    return {
        "pid": record.nspid,
        "parent": record.parent_pid if _in_host_namespace() else None,
        "uids": (record.uid, record.euid, record.gid, record.egid),
        "binary": record.filename,
        "arguments": record.args,
        "directory": record.cwd,
        "start time": record.start_boottime_ns * ticks // 1_000_000_000,
        "start of arguments": record.arg_start,
        "mount namespace": record.ns_mnt,
        "user namespace": record.ns_user,
    }
