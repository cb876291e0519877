"""What this kernel is and has: found in its BTF, never by comparing versions.

The one place that knows of differences between kernels. `detect` gives the names that ``bpf/``
tests with ``#ifdef``.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from collector.errors import KernelError

BTF = Path("/sys/kernel/btf/vmlinux")

# Names in include/uapi/linux/capability.h and their numbers.
_NEEDED = {"CAP_BPF": 39, "CAP_PERFMON": 38, "CAP_SYS_PTRACE": 19, "CAP_DAC_READ_SEARCH": 2}
_CAP_SYS_ADMIN = 21
# Controllers whose cgroup v1 hierarchy container engines always use, best first.
_V1_CONTROLLERS = ("memory", "pids", "cpuset")


class KernelInfo(NamedTuple):
    """The running kernel, as the probes need it."""

    release: str
    machine: str
    headers: Path  # the folder of vmlinux.h
    features: tuple[str, ...]  # HAVE_... names for the compiler
    cgroup: str  # "v2", or "v1:<controller>"
    proven: bool  # the types are the kernel's own, not from a file that somebody chose


def boot_id() -> str:
    """Return the id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def check_rights() -> None:
    """Raise `KernelError` unless this process may load and read probes."""
    status = Path("/proc/self/status").read_text()
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    have = int(match[1], 16) if match else 0
    missing = [
        name
        for name, bit in _NEEDED.items()
        if not have >> bit & 1 and not (bit in (38, 39) and have >> _CAP_SYS_ADMIN & 1)
    ]
    if missing:
        raise KernelError(
            f"rights: {', '.join(missing)} missing: run as root (sudo), or give the container "
            "these capabilities"
        )


def detect(cache: Path, btf: Path = BTF, procfs: Path = Path("/proc")) -> KernelInfo:
    """Return the kernel's features; generate ``vmlinux.h`` into ``cache`` when it is not there.

    Raise `KernelError` for a kernel that cannot carry the probes.
    """
    uname = os.uname()
    if not btf.exists():
        raise KernelError(
            f"kernel {uname.release}: no type information ({btf}): needs Linux 5.8 or newer built "
            "with CONFIG_DEBUG_INFO_BTF, or a BTF file of exactly this kernel (--btf FILE); in a "
            "container, /sys must be the host's"
            if btf == BTF
            else f"btf: {btf}: no such file"
        )
    own = btf != BTF and BTF.exists()
    if own and btf.read_bytes() != BTF.read_bytes():
        raise KernelError(
            f"btf: {btf}: not the types of this kernel ({uname.release}), which has its own "
            f"({BTF}): leave the setting away"
        )
    headers = _generate(cache, btf, uname.release)
    text = (headers / "vmlinux.h").read_text()
    if "BPF_FUNC_ringbuf_output" not in text:
        raise KernelError(f"kernel {uname.release}: no BPF ring buffer: needs Linux 5.8 or newer")
    return KernelInfo(
        uname.release,
        uname.machine,
        headers,
        tuple(_features(text)),
        _cgroup(procfs, text),
        proven=own or btf == BTF,
    )


def _features(text: str) -> Iterator[str]:
    # Parameters of the tracepoint: the group_dead flag came with v6.16.
    exit_hook = re.search(r"\(\*btf_trace_sched_process_exit\)\(([^)]*)\)", text)
    if exit_hook and exit_hook[1].count(",") >= 2:
        yield "HAVE_GROUP_DEAD"
    if "btf_trace_sched_prepare_exec" in text:  # since v6.10
        yield "HAVE_PREPARE_EXEC"
    task = _struct(text, "task_struct")
    if "loginuid;" in task:  # CONFIG_AUDIT
        yield "HAVE_LOGINUID"
    if "time_ns;" in _struct(text, "nsproxy"):  # CONFIG_TIME_NS
        yield "HAVE_TIME_NS"
    if "*__parent;" in _struct(text, "kernfs_node"):  # renamed in v6.15
        yield "HAVE_KERNFS___PARENT"


def _struct(text: str, name: str) -> str:
    start = text.find(f"\nstruct {name} {{\n")
    return text[start : text.find("\n};", start)] if start >= 0 else ""


def _cgroup(procfs: Path, text: str) -> str:
    """Return which cgroup of a process names its container."""
    try:
        rows = [line.split() for line in (procfs / "cgroups").read_text().splitlines()[1:]]
    except OSError:
        return "v2"
    on_v1 = {name for name, hierarchy, *_ in rows if hierarchy != "0"}
    for controller in _V1_CONTROLLERS:
        if controller in on_v1 and f"{controller}_cgrp_id" in text:
            return f"v1:{controller}"
    return "v2"


def _generate(cache: Path, btf: Path, release: str) -> Path:
    # The build id would do, but a BTF file given by hand has none: its content decides.
    with btf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    folder = cache / f"{release}-{digest}"
    header = folder / "vmlinux.h"
    if header.exists():
        return folder
    tool = _bpftool()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"vmlinux.h.{os.getpid()}"
        with partial.open("wb") as out:
            done = subprocess.run(
                [tool, "btf", "dump", "file", str(btf), "format", "c"],
                stdout=out,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        if done.returncode:
            [*_, said] = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason"]
            raise KernelError(f"vmlinux.h: bpftool: {said}")
        partial.write_text(_plain_padding(partial.read_text()))
        partial.rename(header)
    except OSError as error:
        raise KernelError(f"vmlinux.h: {error.filename or folder}: {error.strerror}") from None
    return folder


def _plain_padding(header: str) -> str:
    """Return ``header`` with its padding bit fields turned into arrays.

    bpftool writes padding as a run of ``long: 64``. Clang lowers such a run to one wide integer,
    which BPF aligns to 16 bytes: fields behind it can then be read 16 bytes too far (seen with
    LLVM 14 and mm_struct of 6.18), although offsetof() is right.
    """
    names = itertools.count()
    return re.sub(
        r"(?:\t+long: 64;\n)+",
        lambda run: f"\t\tlong unsigned int __pad{next(names)}[{run[0].count(';')}];\n",
        header,
    )


def _bpftool() -> str:
    found = shutil.which("bpftool", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    # Ubuntu's is a wrapper that wants the tools of exactly this kernel; any of them will do.
    tools = sorted(Path("/usr/lib").glob("linux-*tools*/**/bpftool"))
    for candidate in (*([found] if found else []), *map(str, tools)):
        if subprocess.run([candidate, "version"], capture_output=True, check=False).returncode == 0:
            return candidate
    raise KernelError("vmlinux.h: bpftool is not installed: apt-get install bpftool")
