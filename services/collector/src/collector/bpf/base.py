"""The base programs, fork, exec and exit: their maps, hooks and C text.

Maps that policies share with them are `SHARED_MAPS`. A map's number in the C text is its place in
`base_maps`; its number and the size of its values reach the text as MAP_<NAME> and SIZEOF_<NAME>.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import NamedTuple

from collector.bpf.btf import Btf, BtfKind
from collector.bpf.bytecode import ProgramPlan
from collector.bpf.compiler import Source
from collector.bpf.header import kernel_header
from collector.bpf.kernel import KernelInfo
from collector.bpf.maps import MapSpec, MapType
from collector.bpf.objects import Plan, maps_parts
from collector.bpf.programs import BOUND_BY_BTF, Kind, attach_name
from collector.bpf.rate import Rate
from collector.errors import ProbeError

SOURCES = ("process/exec.bpf.c", "process/fork.bpf.c", "process/exit.bpf.c")
HOOKS = {
    "sched_process_fork": "on_fork",
    "sched_process_exec": "on_exec",
    "sched_process_exit": "on_exit",
}
STAGES = ("on_exec_pieces", "on_exec_walk")  # enum exec_stage of maps.h
SHARED_MAPS = ("events", "processes", "lost")
LOSSES = 5  # enum loss of values.h
WITHHELD_KINDS = 4  # enum withheld_kind of values.h
# Exist only where process life is throttled (withhold.h).
THROTTLE_MAPS = ("throttles", "withheld", "withheld_totals")
THROTTLE_ENTRIES = 8192  # cgroups whose rate is known
# sizeof(struct exec_scratch) and of data_scratch; another number fails to compile.
_EXEC_SCRATCH_BYTES = 25264
_DATA_SCRATCH_BYTES = 32 + 16384


class CredentialsHook(NamedTuple):
    """A hook that reads credentials before they change: exec.bpf.c, on_prepare_exec()."""

    kind: Kind
    target: str
    argument: int  # which word of the context is the linux_binprm


def credentials_hooks(kernel: KernelInfo, flags: list[str]) -> tuple[CredentialsHook | None, ...]:
    """Return the possible hooks, best first; (None,) if credentials are not enabled."""
    if "-DENABLE_CRED" not in flags:
        return (None,)
    if "HAVE_PREPARE_EXEC" in kernel.features:
        return (CredentialsHook(Kind.RAW_TRACEPOINT, "sched_prepare_exec", 1),)
    # fentry needs CAP_BPF and CAP_PERFMON. A kprobe is a perf event: at perf_event_paranoid=3,
    # Debian's default, that takes CAP_SYS_ADMIN. arm64 has fentry since v6.4 or so.
    name = "security_bprm_committing_creds"
    # struct pt_regs (arch/*/include/asm/ptrace.h): di is word 14; on arm64 regs[0] is word 0.
    first = {"x86_64": 14, "aarch64": 0}[platform.machine()]
    return (CredentialsHook(Kind.FENTRY, name, 0), CredentialsHook(Kind.KPROBE, name, first))


def bpf_folder() -> Path:
    """Return where the C sources are: beside this package when installed, else in the checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "bpf_sources", *(parent / "bpf" for parent in package.parents)):
        if (folder / SOURCES[0]).exists():
            return folder
    raise ProbeError(f"probes: {SOURCES[0]}: not found beside the collector")


def compiler_flags(
    kernel: KernelInfo,
    *,
    ring_size_bytes: int,
    process_map_entries: int,
    enable: tuple[str, ...] = (),
    throttle: Rate | None = None,
) -> list[str]:
    """Return the settings of the programs; ``enable`` names optional parts: CRED, NS, ENVS.

    ``throttle``: the highest rate of execs and forks of one cgroup.
    """
    flags = [
        f"-DRING_PAGES={max(1, ring_size_bytes // os.sysconf('SC_PAGE_SIZE'))}",
        f"-DPROCESS_MAP_ENTRIES={process_map_entries}",
        *(f"-D{name}" for name in kernel.features),
        *(f"-DENABLE_{name}" for name in enable),
    ]
    if kernel.cgroup_subsys is not None:
        flags.append(f"-DCGROUP_SUBSYS={kernel.cgroup_subsys}")
    if throttle is not None:
        flags += ["-DENABLE_THROTTLE", *throttle.flags()]
    return flags


def setting(flags: list[str], name: str) -> int:
    """Return the number that `compiler_flags` gave to ``name``."""
    prefix = f"-D{name}="
    return int(next(flag for flag in flags if flag.startswith(prefix)).removeprefix(prefix))


def ring_size_bytes(flags: list[str]) -> int:
    """Return the size of the ring that `compiler_flags` asked for."""
    return setting(flags, "RING_PAGES") * os.sysconf("SC_PAGE_SIZE")


def base_maps(flags: list[str]) -> tuple[MapSpec, ...]:
    """Return the maps, in the order of their numbers."""
    entries = setting(flags, "PROCESS_MAP_ENTRIES")
    maps = [
        MapSpec("events", MapType.RINGBUF, 0, 0, ring_size_bytes(flags)),
        MapSpec("processes", MapType.HASH, 4, 32, entries),
        MapSpec("lost", MapType.PERCPU_ARRAY, 4, 8, LOSSES),
        MapSpec("exec_stages", MapType.PROG_ARRAY, 4, 4, len(STAGES), 0, STAGES),
        MapSpec("exec_scratch", MapType.PERCPU_ARRAY, 4, _EXEC_SCRATCH_BYTES, 1),
        MapSpec("data_scratch", MapType.PERCPU_ARRAY, 4, _DATA_SCRATCH_BYTES, 1),
    ]
    if "-DENABLE_CRED" in flags:
        maps.append(MapSpec("privileges", MapType.HASH, 8, 4, 4096))
    if "-DENABLE_THROTTLE" in flags:
        maps += [
            MapSpec("throttles", MapType.HASH, 16, 72, THROTTLE_ENTRIES),
            MapSpec("withheld", MapType.HASH, 16, 24, entries),
            MapSpec("withheld_totals", MapType.PERCPU_ARRAY, 4, 8, WITHHELD_KINDS),
        ]
    return tuple(maps)


def parts(folder: Path, flags: list[str], hook: CredentialsHook | None) -> list[bytes | str]:
    """Return everything that determines the programs, for the key of their object."""
    files = [path.read_bytes() for path in source_files(folder)]
    return [
        "base",
        *files,
        *flags,
        *maps_parts(base_maps(flags)),
        repr(hook),
        repr(_programs(hook)),
    ]


def source_files(folder: Path) -> list[Path]:
    """Return the C files that the programs are made from, their headers last."""
    return [*(folder / name for name in SOURCES), *sorted((folder / "lib").glob("*.h"))]


def plan(kernel: KernelInfo, folder: Path, flags: list[str], hook: CredentialsHook | None) -> Plan:
    """Return what to compile; reads this kernel's types. Raises `BtfError`."""
    btf = Btf.vmlinux(kernel.btf)
    files = source_files(folder)
    text = "".join(path.read_text() for path in files)
    headers = [(path.name, path.read_text()) for path in files[len(SOURCES) :]]
    headers.append(("kernel.h", kernel_header(btf, text)))
    maps = base_maps(flags)
    numbers = [f"-DMAP_{spec.name.upper()}={number}" for number, spec in enumerate(maps)]
    sizes = [f"-DSIZEOF_{spec.name.upper()}={spec.value_size}" for spec in maps]
    argument = [f"-DBPRM_ARGUMENT={hook.argument}"] if hook else []
    programs = tuple(
        program._replace(attach_btf_id=_btf_id(btf, program)) for program in _programs(hook)
    )
    source = Source(
        source_text(folder),
        tuple(program.name for program in programs),
        (*flags, *numbers, *sizes, *argument),
        tuple(headers),
    )
    return Plan(source, maps, programs)


def source_text(folder: Path) -> str:
    """Return the programs joined, each behind a #line, so that errors name the real file."""
    files = (f'#line 1 "{folder / name}"\n{(folder / name).read_text()}\n' for name in SOURCES)
    return '#include "kernel.h"\n' + "".join(files)


def _programs(hook: CredentialsHook | None) -> tuple[ProgramPlan, ...]:
    first = [ProgramPlan("on_prepare_exec", hook.kind, hook.target)] if hook else []
    return (
        *first,
        *(ProgramPlan(name, Kind.TAIL_CALL) for name in STAGES),
        *(ProgramPlan(name, Kind.RAW_TRACEPOINT, target) for target, name in HOOKS.items()),
    )


def _btf_id(btf: Btf, program: ProgramPlan) -> int:
    if program.kind not in BOUND_BY_BTF:
        return 0
    found = btf.find(attach_name(program.kind, program.target), BtfKind.FUNC)
    if found is None:
        raise ProbeError(f"probes: {program.target}: no such function in this kernel's BTF")
    return found
