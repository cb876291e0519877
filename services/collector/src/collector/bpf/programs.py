"""BPF programs: loads bytecode of one kind, or reports the verifier's reason.

A `Program` owns its file descriptor. The kernel keeps the program for as long as a descriptor, a
link or a pin refers to it, so a program may be closed once its link exists.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from struct import Struct
from typing import NamedTuple

from collector.bpf.syscall import Command, address_of, bpf
from collector.errors import VerifierError

_SLEEPABLE = 1 << 4  # BPF_F_SLEEPABLE
_NAME_MAX = 15  # BPF_OBJ_NAME_LEN without the NUL
_LOG_SIZES = (1 << 18, 1 << 24)  # the largest that every kernel accepts: UINT_MAX >> 8
# A signal ends the verifier with EAGAIN: do_check() in kernel/bpf/verifier.c, since c3494801cd17
# ("bpf: check pending signals while verifying programs", v5.0).
_ATTEMPTS = 10
_THREADS_MAX, _OF_A_THREAD = 4, 4  # a thread costs 0.1 ms, a program 0.2 to 3
# union bpf_attr, BPF_PROG_LOAD: up to attach_btf_obj_fd.
_LOAD = Struct("<IIQQIIQII16sIIIIQIIQIII")
_INFO_SIZE = 224  # struct bpf_prog_info up to verified_insns


class ProgramType(IntEnum):
    """``enum bpf_prog_type``."""

    KPROBE = 2  # uprobes too
    TRACEPOINT = 5
    RAW_TRACEPOINT = 17
    TRACING = 26
    LSM = 29


class AttachType(IntEnum):
    """``enum bpf_attach_type``."""

    NONE = 0
    TRACE_RAW_TP = 23
    TRACE_FENTRY = 24
    TRACE_FEXIT = 25
    MODIFY_RETURN = 26
    LSM_MAC = 27
    PERF_EVENT = 41
    TRACE_KPROBE_MULTI = 42
    TRACE_UPROBE_MULTI = 48


class Kind(StrEnum):
    """A way to run a program; its target's meaning is in `links.attach`."""

    RAW_TRACEPOINT = "raw_tracepoint"
    TP_BTF = "tp_btf"
    FENTRY = "fentry"
    FEXIT = "fexit"
    FMOD_RET = "fmod_ret"
    LSM = "lsm"
    KPROBE = "kprobe"
    KRETPROBE = "kretprobe"
    KPROBE_MULTI = "kprobe.multi"
    KRETPROBE_MULTI = "kretprobe.multi"
    UPROBE = "uprobe"
    URETPROBE = "uretprobe"
    UPROBE_MULTI = "uprobe.multi"
    URETPROBE_MULTI = "uretprobe.multi"
    TRACEPOINT = "tracepoint"
    TAIL_CALL = "tail_call"  # a raw tracepoint program that only other programs call


_TYPES = {
    Kind.RAW_TRACEPOINT: (ProgramType.RAW_TRACEPOINT, AttachType.NONE),
    Kind.TAIL_CALL: (ProgramType.RAW_TRACEPOINT, AttachType.NONE),
    Kind.TP_BTF: (ProgramType.TRACING, AttachType.TRACE_RAW_TP),
    Kind.FENTRY: (ProgramType.TRACING, AttachType.TRACE_FENTRY),
    Kind.FEXIT: (ProgramType.TRACING, AttachType.TRACE_FEXIT),
    Kind.FMOD_RET: (ProgramType.TRACING, AttachType.MODIFY_RETURN),
    Kind.LSM: (ProgramType.LSM, AttachType.LSM_MAC),
    Kind.KPROBE: (ProgramType.KPROBE, AttachType.NONE),
    Kind.KRETPROBE: (ProgramType.KPROBE, AttachType.NONE),
    Kind.KPROBE_MULTI: (ProgramType.KPROBE, AttachType.TRACE_KPROBE_MULTI),
    Kind.KRETPROBE_MULTI: (ProgramType.KPROBE, AttachType.TRACE_KPROBE_MULTI),
    Kind.UPROBE: (ProgramType.KPROBE, AttachType.NONE),
    Kind.URETPROBE: (ProgramType.KPROBE, AttachType.NONE),
    Kind.UPROBE_MULTI: (ProgramType.KPROBE, AttachType.TRACE_UPROBE_MULTI),
    Kind.URETPROBE_MULTI: (ProgramType.KPROBE, AttachType.TRACE_UPROBE_MULTI),
    Kind.TRACEPOINT: (ProgramType.TRACEPOINT, AttachType.NONE),
}

# Kinds whose program is bound to a kernel function or tracepoint by its BTF id when it is loaded.
BOUND_BY_BTF = frozenset({Kind.TP_BTF, Kind.FENTRY, Kind.FEXIT, Kind.FMOD_RET, Kind.LSM})


def attach_name(kind: Kind, target: str) -> str:
    """Return the name in BTF that a program of ``kind`` on ``target`` binds to.

    LSM hooks are functions ``bpf_lsm_<hook>`` (kernel/bpf/bpf_lsm.c); a tp_btf program binds to
    the typedef ``btf_trace_<tracepoint>`` (include/trace/bpf_probe.h).
    """
    if kind is Kind.LSM:
        return f"bpf_lsm_{target}"
    return f"btf_trace_{target}" if kind is Kind.TP_BTF else target


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """What a program is loaded from: relocated instructions of one kind."""

    name: str
    kind: Kind
    instructions: bytes  # eight bytes each; map descriptors are written in
    attach_btf_id: int = 0  # for kinds in BOUND_BY_BTF
    attach_btf_fd: int = 0  # the BTF object of a module; 0: the kernel's own
    sleepable: bool = False


class ProgramInfo(NamedTuple):
    """The kernel's description of a program: ``struct bpf_prog_info``."""

    id: int
    run_time_ns: int  # only while statistics are on: kernel.bpf_stats_enabled
    run_count: int
    recursion_misses: int  # since v5.12
    verified_instructions: int  # since v5.16


class Program:
    """Owns one loaded program's file descriptor."""

    def __init__(self, fd: int, name: str, kind: Kind) -> None:
        self.fd = fd
        self.name = name
        self.kind = kind

    def info(self) -> ProgramInfo:
        """Return the kernel's description of it; raise `OSError`."""
        buffer = ctypes.create_string_buffer(_INFO_SIZE)
        bpf(
            Command.OBJ_GET_INFO_BY_FD, Struct("<IIQ").pack(self.fd, _INFO_SIZE, address_of(buffer))
        )
        (number,) = Struct("<I").unpack_from(buffer.raw, 4)
        run_time, run_count, misses, verified = Struct("<QQQI").unpack_from(buffer.raw, 192)
        return ProgramInfo(number, run_time, run_count, misses, verified)

    def close(self) -> None:
        """Close the file descriptor; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def load(spec: ProgramSpec) -> Program:
    """Load ``spec``; raise `VerifierError`, which keeps the verifier's log and quotes its end."""
    try:
        return Program(_load(spec, None), spec.name, spec.kind)
    except OSError as error:
        code, log = error.errno or errno.EINVAL, ""
    # Once more for the log: writing it makes each load slower. EPERM comes before the verifier.
    if code != errno.EPERM:
        for size in _LOG_SIZES:
            buffer = ctypes.create_string_buffer(size)
            try:
                return Program(_load(spec, buffer), spec.name, spec.kind)
            except OSError as error:
                log = buffer.value.decode(errors="replace")
                # Until v6.4 a log that does not fit fails in its own way: the reason is cut off.
                if error.errno != errno.ENOSPC:
                    code = error.errno or code
                    break
    raise VerifierError(spec.name, spec.kind, code, log)


def load_all(
    specs: Sequence[ProgramSpec], meanwhile: Callable[[], None]
) -> list[Program | VerifierError]:
    """Load programs in several threads, and call ``meanwhile`` in this one, which then loads too.

    So all are loaded where no thread can be started. An error leaves no program.

    A process with rights holds no lock while a program is verified (bpf_check() of
    kernel/bpf/verifier.c), and ctypes calls libc without Python's.
    """
    found: dict[int, Program | VerifierError] = {}
    places = iter(range(len(specs)))  # a part that was refused may run all the same

    def load_part() -> None:
        for place in places:
            try:
                found[place] = load(specs[place])
            except VerifierError as error:
                found[place] = error

    threads = min(_THREADS_MAX, len(os.sched_getaffinity(0)), len(specs) // _OF_A_THREAD)
    parts: list[Future[None]] = []
    try:
        with ThreadPoolExecutor(max(1, threads)) as pool:  # starts none before the first part
            with contextlib.suppress(RuntimeError):  # a limit of threads, as TasksMax of systemd
                parts += (pool.submit(load_part) for _ in range(threads if threads > 1 else 0))
            meanwhile()
            load_part()
        for part in parts:
            part.result()
        return [found[place] for place in range(len(specs))]
    except BaseException:
        for one in found.values():
            if isinstance(one, Program):
                one.close()
        raise


def _load(spec: ProgramSpec, log: ctypes.Array[ctypes.c_char] | None) -> int:
    kind, expected = _TYPES[spec.kind]
    instructions = ctypes.create_string_buffer(spec.instructions, len(spec.instructions))
    license_ = ctypes.create_string_buffer(b"GPL")
    attr = _LOAD.pack(
        kind, len(spec.instructions) // 8, address_of(instructions), address_of(license_),
        1 if log is not None else 0, len(log) if log is not None else 0, address_of(log),
        0, _SLEEPABLE if spec.sleepable else 0, spec.name.encode()[:_NAME_MAX], 0, expected,
        0, 0, 0, 0, 0, 0, 0, spec.attach_btf_id, spec.attach_btf_fd,
    )  # fmt: skip
    for _ in range(_ATTEMPTS - 1):
        try:
            return bpf(Command.PROG_LOAD, attr)
        except BlockingIOError:
            continue
    return bpf(Command.PROG_LOAD, attr)
