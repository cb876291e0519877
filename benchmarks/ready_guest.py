"""Ready-made policies on a kernel that hooks functions: instructions in a guest.

The guest is that of ``make test-kernels`` for Linux 6.1, or for the one of ``KERNELS``, with
Debian's redis, nginx, PostgreSQL and bpftrace. Its clock counts instructions, one a
nanosecond, so what acts take and the ratios do not depend on what this host does meanwhile; what
memory and branches cost a real CPU is not in them. The packages are fetched once.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
import time
from pathlib import Path

from benchmarks.harness import CACHE, Figure, Report, Unavailable, need, need_root
from vm import compiler, images, qemu
from vm.kernels import Machine, select

KERNEL = os.environ.get("KERNELS") or "6.1"
_PACKAGES = ("bpftrace", "nginx", "postgresql", "redis-server", "redis-tools", "wrk")
_TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86", "cpio": "cpio", "depmod": "kmod",
    "mke2fs": "e2fsprogs", "xz": "xz-utils",
}  # fmt: skip


def run(report: Report, quick: bool) -> None:
    """Boot the guest and report its figures."""
    report.begin("ready-guest", f"ready-made policies in a guest, Linux {KERNEL}, by instructions")
    need_root()
    for command, package in _TOOLS.items():
        need(command, package)
    folder = CACHE / "ready-guest"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (machine,) = select(KERNEL)
    try:
        results = _measured(machine, folder, report, "quick" if quick else "full")
        found = json.loads((results / "bench.json").read_text())
    except (images.ImageError, qemu.VmError, OSError) as error:
        raise Unavailable(f"{error}; see {folder / 'console.log'}") from error
    report.say(f"Linux {found['kernel']}")
    for figure in found["figures"]:
        del figure["met"]
        if figure["unit"] == "ns":  # instructions, of which a real CPU does several in a nanosecond
            figure["wanted"] = None
        report.put(Figure(**figure))


def _measured(machine: Machine, folder: Path, report: Report, kind: str) -> Path:
    """Return the folder with the guest's results."""
    kernel, root = images.kernel(machine), images.root(machine)
    source = folder / "checkout.tar"
    images.checkout(machine, source)
    _add_servers(machine, source)
    began = time.monotonic()
    with compiler.serving(machine) as answering:
        return qemu.boot(
            machine, kernel, root, source, folder, answering,
            lambda step: report.say(f"{time.monotonic() - began:.0f} s: {step}"), kind,
        )  # fmt: skip


def _add_servers(machine: Machine, source: Path) -> None:
    """Add the servers to what the guest lays over its root, without the packages it has."""
    archive = images.Archive(machine.root, machine.arch)
    archive.update()
    known = set(archive.fetch_all(images.PACKAGES))
    packages = [one for one in archive.fetch_all(_PACKAGES) if one not in known]
    with tempfile.TemporaryDirectory(dir=images.CACHE) as name:
        folder = Path(name)
        images.unpack(packages, folder)
        for useless in ("doc", "locale", "man"):
            shutil.rmtree(folder / "usr/share" / useless, ignore_errors=True)
        with tarfile.open(source, "a") as tar:
            for part in ("etc", "usr"):
                tar.add(folder / part, part)
