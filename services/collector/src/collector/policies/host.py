"""Properties of this host that plans and texts depend on."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tracingpolicy.values import Namespace


def host_namespaces(procfs: Path = Path("/proc")) -> dict[Namespace, int]:
    """Return the inode numbers of the first process's namespaces, what ``host_ns`` means.

    Where that process may not be looked at: those of the collector.
    """
    found = {}
    for namespace in Namespace:
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in namespace.value).lstrip("_")
        for process in ("self", "1"):
            with contextlib.suppress(OSError):  # not allowed, or a kernel without it
                found[namespace] = (procfs / process / "ns" / name).stat().st_ino
    return found


def may_misread_code(procfs: Path = Path("/proc")) -> bool:
    """Return whether a processor may execute what another one has just replaced.

    QEMU's emulation with several processors does: on Linux 6.12 the kernel stopped with "Oops:
    int3" when ftrace removed a program from a function that another processor was calling at a high
    rate. Also True under KVM with QEMU's default model: /proc/cpuinfo has the same name for both.
    """
    cpuinfo = (procfs / "cpuinfo").read_text()
    emulated = any(name in cpuinfo for name in ("QEMU TCG CPU", "QEMU Virtual CPU"))
    return emulated and cpuinfo.count("processor\t") > 1
