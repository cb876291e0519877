"""Properties of the running kernel: found in its BTF, never by comparing versions.

The only module that knows differences between kernels. `detect` returns the names that ``bpf/``
tests with ``#ifdef``. Reading them from BTF costs 0.06 s of CPU and 20 MB, so they are kept in the
cache under the kernel's build id.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from chassis import capabilities
from collector.bpf.btf import VMLINUX, Btf, BtfKind
from collector.bpf.cache import BlobCache, key_of
from collector.errors import BtfError, KernelError

BTF = VMLINUX

# Controllers whose cgroup v1 hierarchy container engines always use, best first.
_V1_CONTROLLERS = ("memory", "pids", "cpuset")


class KernelInfo(NamedTuple):
    """The running kernel, as the probes need it."""

    release: str
    machine: str
    build: str  # identifies this kernel's build and types: compiled objects fit if it is equal
    btf: Path  # the file with its types
    cache: BlobCache
    features: tuple[str, ...]  # HAVE_... names for the compiler
    cgroup: str  # "v2", or "v1:<controller>"
    cgroup_subsys: int | None  # on v1: the controller's number, enum cgroup_subsys_id
    proven: bool  # the types are the kernel's own, not from a file that was set


def boot_id() -> str:
    """Return the id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def check_rights() -> None:
    """Raise `KernelError` unless this process has the rights to load and read probes."""
    missing = capabilities.missing(capabilities.effective())
    if missing:
        raise KernelError(
            f"rights: {', '.join(missing)} missing: run as root (sudo), or give the container "
            "these capabilities"
        )


def detect(cache: Path, btf: Path = BTF, procfs: Path = Path("/proc")) -> KernelInfo:
    """Return the kernel's features, from ``cache`` when they are there.

    Raise `KernelError` for a kernel that cannot carry the probes, `BtfError` for a file that is no
    type information.
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
            f"({BTF}): remove the setting"
        )
    blobs = BlobCache(cache)
    build = _build(uname, btf)
    facts = _facts(blobs, build, btf)
    if not facts["ring"]:
        raise KernelError(f"kernel {uname.release}: no BPF ring buffer: needs Linux 5.8 or newer")
    controller = _v1_controller(procfs, facts["controllers"])
    return KernelInfo(
        uname.release,
        uname.machine,
        build,
        btf,
        blobs,
        tuple(facts["features"]),
        f"v1:{controller}" if controller else "v2",
        facts["controllers"][controller] if controller else None,
        proven=own or btf == BTF,
    )


def _build(uname: os.uname_result, btf: Path, notes: Path = Path("/sys/kernel/notes")) -> str:
    """Return what distinguishes this kernel's types: its build id, or the hash of its BTF."""
    build_id = ""
    if btf == BTF:
        try:
            build_id = _gnu_build_id(notes.read_bytes())
        except OSError:
            build_id = ""
    if not build_id:
        with btf.open("rb") as file:
            build_id = f"btf {hashlib.file_digest(file, 'sha256').hexdigest()}"
    return f"{uname.release} {uname.version} {uname.machine} {build_id}"


def _gnu_build_id(notes: bytes) -> str:
    """Return the NT_GNU_BUILD_ID in a run of ELF notes (elf.h), or nothing."""
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = (
            int.from_bytes(notes[at + part : at + part + 4], "little") for part in (0, 4, 8)
        )
        name_at = at + 12
        at = name_at + (name_size + 3) // 4 * 4
        if kind == 3 and notes[name_at : name_at + name_size] == b"GNU\0":
            return notes[at : at + size].hex()
        at += (size + 3) // 4 * 4
    return ""


def _facts(blobs: BlobCache, build: str, btf: Path) -> dict[str, Any]:
    """Return what `_read_facts` returns, from the cache where it is there."""
    key = key_of(["kernel facts 2", build])
    kept = blobs.read(key)
    if kept is not None:
        facts: dict[str, Any] = json.loads(kept)
        return facts
    try:
        facts = _read_facts(Btf.vmlinux(btf))
    except (ValueError, IndexError, struct.error) as error:
        raise BtfError(f"btf: {btf}: damaged type information: {error}") from None
    blobs.write(key, json.dumps(facts).encode())
    return facts


def _read_facts(btf: Btf) -> dict[str, Any]:
    numbers = btf.constants({f"{controller}_cgrp_id" for controller in _V1_CONTROLLERS})
    return {
        "ring": btf.has_name("BPF_FUNC_ringbuf_output"),
        "features": list(_features(btf)),
        "controllers": {name.removesuffix("_cgrp_id"): number for name, number in numbers.items()},
    }


def _features(btf: Btf) -> Iterator[str]:
    # Arguments of the tracepoint: the group_dead flag came with v6.16.
    if (
        _has_tracepoint(btf, "sched_process_exit")
        and len(btf.tracepoint_proto("sched_process_exit").params) >= 2
    ):
        yield "HAVE_GROUP_DEAD"
    if _has_tracepoint(btf, "sched_prepare_exec"):  # since v6.10
        yield "HAVE_PREPARE_EXEC"
    if _has_member(btf, "task_struct", "loginuid"):  # CONFIG_AUDIT
        yield "HAVE_LOGINUID"
    if _has_member(btf, "nsproxy", "time_ns"):  # CONFIG_TIME_NS
        yield "HAVE_TIME_NS"
    if _has_member(btf, "kernfs_node", "__parent"):  # renamed in v6.15
        yield "HAVE_KERNFS___PARENT"
    # BPF_MAY_GOTO: "bpf: Introduce may_goto instruction", v6.9.
    if _has_member(btf, "bpf_verifier_state", "may_goto_depth"):
        yield "HAVE_MAY_GOTO"


def _has_tracepoint(btf: Btf, name: str) -> bool:
    return btf.find(f"btf_trace_{name}", BtfKind.TYPEDEF) is not None


def _has_member(btf: Btf, struct: str, member: str) -> bool:
    try:
        btf.struct_member(f"struct {struct}", member)
    except BtfError:
        return False
    return True


def _v1_controller(procfs: Path, known: dict[str, int]) -> str | None:
    """Return the cgroup v1 controller whose cgroup names a process's container; None: it is v2."""
    try:
        rows = [line.split() for line in (procfs / "cgroups").read_text().splitlines()[1:]]
    except OSError:
        return None
    on_v1 = {name for name, hierarchy, *_ in rows if hierarchy != "0"}
    return next((name for name in _V1_CONTROLLERS if name in on_v1 and name in known), None)
