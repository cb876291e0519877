"""Compile, load and attach the probes of ``bpf/``, in a process of their own.

BCC brings LLVM: 100 MB that nobody needs once the programs are in the kernel. So a child does it,
hands over the file descriptors and ends; whoever holds them holds the probes, and when the
collector ends, however it ends, the kernel detaches everything. ``open_probes`` runs in the
collector, ``main`` in the child; only the child imports BCC.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collector.bpf.kernel import KernelInfo
from collector.bpf.maps import BpfMap
from collector.bpf.ring import Ring
from collector.errors import ProbeError

SOURCES = ("process/exec.bpf.c", "process/fork.bpf.c", "process/exit.bpf.c")
HOOKS = {
    "sched_process_fork": "on_fork",
    "sched_process_exec": "on_exec",
    "sched_process_exit": "on_exit",
}
STAGES = ("on_exec_pieces", "on_exec_walk")  # enum exec_stage of maps.h
MAPS = ("events", "processes", "lost", "exec_stages")
_FDS_MAX = 32


@dataclass(slots=True)
class Probes:
    """Owns the attached probes: `close` detaches them, unless they are kept (see pins.py)."""

    ring: Ring
    processes: BpfMap
    lost: BpfMap
    hooks: tuple[str, ...]
    _held: dict[str, int]  # file descriptors that only have to be open: the others' are in there

    @classmethod
    def of(cls, fds: dict[str, int], ring_size_bytes: int) -> Probes:
        """Return the probes with these file descriptors: of MAPS, and of links by their hooks."""
        held = {name: fd for name, fd in fds.items() if name not in ("events", "processes", "lost")}
        return cls(
            ring=Ring(fds["events"], ring_size_bytes),
            processes=BpfMap(fds["processes"], key_size=4, value_size=32),
            lost=BpfMap(fds["lost"], key_size=4, value_size=8, per_cpu=True),
            hooks=tuple(name for name in held if name not in MAPS),
            _held=held,
        )

    def fds(self) -> dict[str, int]:
        """Return all file descriptors, as `of` takes them."""
        maps = {"events": self.ring.fd, "processes": self.processes.fd, "lost": self.lost.fd}
        return maps | self._held

    def close(self) -> None:
        """Detach; the ring can still be drained until `free`."""
        for fd in self._held.values():
            os.close(fd)
        self._held = {}

    def free(self) -> None:
        """Unmap the ring and close the maps."""
        self.ring.close()
        self.processes.close()
        self.lost.close()


def bpf_folder() -> Path:
    """Return where the C sources are: beside this package when installed, else in the checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "bpf_sources", *(parent / "bpf" for parent in package.parents)):
        if (folder / SOURCES[0]).exists():
            return folder
    raise ProbeError(f"probes: {SOURCES[0]}: not found beside the collector")


def compiler_flags(
    kernel: KernelInfo,
    folder: Path,
    *,
    ring_size_bytes: int,
    process_map_entries: int,
    enable: tuple[str, ...] = (),
) -> list[str]:
    """Return what the compiler is told; ``enable`` names optional parts: CRED, NS, ENVS."""
    major, minor = (int(part) for part in kernel.release.split("-")[0].split(".")[:2])
    flags = [
        f"-I{folder / 'lib'}",
        f"-I{kernel.headers}",
        f"-DLINUX_VERSION_CODE={major << 16 | minor << 8}",
        f"-DRING_PAGES={max(1, ring_size_bytes // os.sysconf('SC_PAGE_SIZE'))}",
        f"-DPROCESS_MAP_ENTRIES={process_map_entries}",
        "-Wno-macro-redefined",
        *(f"-D{name}" for name in kernel.features),
        *(f"-DENABLE_{name}" for name in enable),
    ]
    if kernel.cgroup.startswith("v1:"):
        flags.append(f"-DCGROUP_SUBSYS={kernel.cgroup[3:]}_cgrp_id")
    return flags


async def open_probes(kernel: KernelInfo, flags: list[str], folder: Path) -> Probes:
    """Return the attached probes; raise `ProbeError` with what compiler or verifier said."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    order = {"folder": str(folder), "flags": flags, "features": kernel.features}
    # The distribution's python3 has BCC; ours may be another that sees it.
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "collector.bpf.probes",
        str(theirs.fileno()),
        json.dumps(order),
        pass_fds=(theirs.fileno(),),
        cwd=kernel.headers,  # the compiler looks for vmlinux.h in the current folder first
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    theirs.close()
    try:
        output, _ = await child.communicate()
        with ours:
            data, fds, _, _ = socket.recv_fds(ours, 1 << 16, _FDS_MAX)
    except asyncio.CancelledError:
        if child.returncode is None:
            child.kill()
        raise
    log = output.decode(errors="replace")
    answer: dict[str, Any] = json.loads(data) if data else {"error": f"ended early: {_last(log)}"}
    if "error" in answer:
        raise ProbeError(f"probes: {answer['error']}{_cause(log)}", log)
    return Probes.of(dict(zip(answer["names"], fds, strict=True)), ring_size_bytes(flags))


def ring_size_bytes(flags: list[str]) -> int:
    """Return the size of the ring that `compiler_flags` asked for."""
    pages = next(f for f in flags if f.startswith("-DRING_PAGES=")).split("=")[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _cause(log: str) -> str:
    """Return what the compiler complained of first, or how the verifier ended."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    complaints = [line for line in lines if ": error: " in line]
    said = complaints[:1] or [line for line in lines if not line.startswith("processed ")][-1:]
    return "".join(f": {line}" for line in said)


def _last(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def source(folder: Path) -> str:
    """Return the programs joined, each behind a #line, so that errors name the real file."""
    return "".join(
        f'#line 1 "{folder / name}"\n{(folder / name).read_text()}\n' for name in SOURCES
    )


def _attach(order: dict[str, Any]) -> dict[str, int]:
    """Return file descriptors by name, those of `Probes.of`: the child's work."""
    folder = Path(order["folder"])
    os.environ["BCC_KERNEL_SOURCE"] = str(folder / "shim")
    from bcc import BPF  # reads the variable, and is the 100 MB

    try:
        bpf = BPF(text=source(folder), cflags=order["flags"])
    except Exception as error:
        raise ProbeError(f"compile: {error}") from error
    step = "load"
    try:
        programs = {
            name: bpf.load_func(name, BPF.RAW_TRACEPOINT) for name in (*STAGES, *HOOKS.values())
        }
        stages = bpf["exec_stages"]
        for index, name in enumerate(STAGES):
            stages[stages.Key(index)] = stages.Leaf(programs[name].fd)
        hooks = dict(HOOKS)
        kprobe = None
        if "-DENABLE_CRED" in order["flags"]:
            if "HAVE_PREPARE_EXEC" in order["features"]:
                hooks = {"sched_prepare_exec": "on_prepare_exec", **hooks}
            else:
                kprobe = "security_bprm_committing_creds"
        step = "attach"
        for tracepoint, name in hooks.items():
            step = f"attach {tracepoint}"
            bpf.attach_raw_tracepoint(tp=tracepoint, fn_name=name)
        if kprobe:
            step = f"attach {kprobe}"
            bpf.attach_kprobe(event=kprobe, fn_name="on_committing_creds")
    except Exception as error:
        raise ProbeError(f"{step}: {error}") from error
    # The ring goes without its BCC reader; the program array must stay open: the kernel empties
    # one that no user space holds.
    fds = {name: bpf[name].map_fd for name in MAPS}
    # BCC's names are bytes or not, and its kprobes by event or by event and function: by version.
    fds |= {os.fsdecode(tracepoint): fd for tracepoint, fd in bpf.raw_tracepoint_fds.items()}
    if kprobe:
        (found,) = bpf.kprobe_fds.values()
        fds[kprobe] = next(iter(found.values())) if isinstance(found, dict) else found
    return fds


def main() -> None:
    """Run in the child: carry out the order of argv[2], answer on the socket argv[1]."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    try:
        fds = _attach(json.loads(sys.argv[2]))
    except Exception as error:
        channel.send(json.dumps({"error": str(error)}).encode())
    else:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds.values()))]
        channel.sendmsg([json.dumps({"names": list(fds)}).encode()], rights)
    # Not a normal end: BCC would detach what now is another's.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
