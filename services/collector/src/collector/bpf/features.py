"""What this kernel lets this process load and attach: found by trying, never by version.

Each kind is tried once, when it is first needed, with a program of two instructions (``return 0``).
Kinds whose attachment needs further rights (perf events) are also attached briefly, which costs up
to 0.1 s.
"""

from __future__ import annotations

import errno
import os
import struct
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from collector.bpf import links, maps, programs
from collector.bpf.btf import Btf, BtfKind
from collector.bpf.links import Uprobe
from collector.bpf.maps import MapSpec, MapType
from collector.bpf.programs import BOUND_BY_BTF, Kind, ProgramSpec, attach_name
from collector.errors import AttachError, ProbeError, VerifierError

# r0 = 0; exit
_RETURN_0 = bytes.fromhex("b700000000000000 9500000000000000")
# A function and a tracepoint of every kernel above the floor.
_FUNCTION = "security_file_open"
_TARGETS = {Kind.TP_BTF: "sched_process_exit", Kind.LSM: "file_open"}
_UPROBES = frozenset({Kind.UPROBE, Kind.URETPROBE, Kind.UPROBE_MULTI, Kind.URETPROBE_MULTI})
# Loading these is not enough: attaching needs further rights.
_ATTACHED = _UPROBES | {
    Kind.FENTRY, Kind.KPROBE, Kind.KRETPROBE, Kind.KPROBE_MULTI, Kind.KRETPROBE_MULTI,
    Kind.TRACEPOINT,
}  # fmt: skip
# Run from the same trampoline as fentry: arm64 before v6.4 or so loads them and refuses to attach.
_LIKE_FENTRY = frozenset({Kind.FEXIT, Kind.FMOD_RET, Kind.LSM})


def _mark(fd: int) -> bytes:
    """Return a program that stores 1 in the array ``fd``."""
    # r1 = address of the first value; *(u64 *)r1 = 1
    address = bytes.fromhex("18210000") + fd.to_bytes(4, "little") + bytes(8)
    return address + bytes.fromhex("7a01000001000000") + _RETURN_0


@dataclass(slots=True)
class Features:
    """The kinds of programs that work here; each is tried when it is first needed."""

    btf: Btf
    _reasons: dict[tuple[Kind, bool], str] = field(default_factory=dict)
    _helpers: dict[tuple[Kind, int], bool] = field(default_factory=dict)
    _functions: dict[tuple[Kind, int], str] = field(default_factory=dict)
    _arguments: dict[tuple[int, tuple[int, ...]], str] = field(default_factory=dict)

    def can(self, kind: Kind, *, sleepable: bool = False) -> bool:
        """Return whether programs of this kind load and attach here."""
        return not self.why_not(kind, sleepable=sleepable)

    def why_not(self, kind: Kind, *, sleepable: bool = False) -> str:
        """Return why programs of this kind cannot be used here; empty if they can."""
        key = (kind, sleepable)
        if key not in self._reasons:
            self._reasons[key] = self._try(kind, sleepable)
        return self._reasons[key]

    def has_helper(self, kind: Kind, number: int) -> bool:
        """Return whether programs of this kind may call a BPF helper, by ``enum bpf_func_id``."""
        key = (kind, number)
        if key not in self._helpers:
            self._helpers[key] = self._try_helper(kind, number)
        return self._helpers[key]

    def why_not_function(self, kind: Kind, function: int) -> str:
        """Return why a program of this kind cannot be bound to a function; empty if it can."""
        key = (kind, function)
        if key not in self._functions:
            self._functions[key] = self._try_code(ProgramSpec("try", kind, _RETURN_0, function))
        return self._functions[key]

    def why_not_arguments(self, function: int, positions: tuple[int, ...]) -> str:
        """Return why fentry cannot read these arguments of a function; empty if it can.

        The verifier has to know the type that a pointer points to: before v5.17 no number, and
        never a struct that BTF only declares (btf_ctx_access() of kernel/bpf/btf.c).
        """
        key = (function, positions)
        if key not in self._arguments:
            # r2 = ((u64 *)r1)[position]
            reads = (struct.pack("<BBhi", 0x79, 0x12, 8 * one, 0) for one in positions)
            spec = ProgramSpec("try", Kind.FENTRY, b"".join(reads) + _RETURN_0, function)
            self._arguments[key] = self._try_code(spec)
        return self._arguments[key]

    def why_not_code(self, kind: Kind, instructions: bytes) -> str:
        """Return why the kernel refuses instructions that end with ``return 0``, added here."""
        return self._try_code(self._spec(kind, instructions + _RETURN_0))

    def _try_code(self, spec: ProgramSpec) -> str:
        try:
            programs.load(spec).close()
        except VerifierError as error:
            return error.reason
        return ""

    def _try(self, kind: Kind, sleepable: bool) -> str:
        try:
            program = programs.load(self._spec(kind, _RETURN_0, sleepable))
        except VerifierError as error:
            return error.reason
        try:
            if kind in _ATTACHED:
                self._try_attach(kind, program)
        except AttachError as error:
            return error.reason
        finally:
            program.close()
        if kind in _LIKE_FENTRY and (reason := self.why_not(Kind.FENTRY)):
            return reason
        return self._why_lsm_never_runs() if kind is Kind.LSM else ""

    def _why_lsm_never_runs(self) -> str:
        """Return why LSM programs do not run; they load and attach without the module as well.

        Hooks call it only if CONFIG_LSM or lsm= has "bpf" (security/bpf/hooks.c, DEFINE_LSM).
        """
        try:
            with (
                closing(maps.create(MapSpec("seen", MapType.ARRAY, 4, 8, 1))) as seen,
                closing(programs.load(self._spec(Kind.LSM, _mark(seen.fd)))) as program,
                closing(links.attach(program, _TARGETS[Kind.LSM])),
            ):
                os.close(os.open(os.devnull, os.O_RDONLY))
                ran = any(seen.lookup(bytes(4)) or b"")
        except ProbeError as error:
            return str(error)
        return "" if ran else 'BPF is no active security module: boot with "bpf" in lsm='

    def _spec(self, kind: Kind, instructions: bytes, sleepable: bool = False) -> ProgramSpec:
        number = 0
        if kind in BOUND_BY_BTF:
            name = attach_name(kind, _TARGETS.get(kind, _FUNCTION))
            wanted = BtfKind.TYPEDEF if kind is Kind.TP_BTF else BtfKind.FUNC
            number = self.btf.find(name, wanted) or 0
        return ProgramSpec("try", kind, instructions, number, sleepable=sleepable)

    def _try_attach(self, kind: Kind, program: programs.Program) -> None:
        if kind in _UPROBES:
            # In a file that no process maps, so that no process reaches the breakpoint.
            links.attach_uprobe(program, Uprobe(Path(__file__), 0)).close()
        elif kind is Kind.TRACEPOINT:
            links.attach(program, "sched/sched_process_exit").close()
        else:
            links.attach(program, _FUNCTION).close()

    def _try_helper(self, kind: Kind, number: int) -> bool:
        # call number; r0 = 0; exit. The verifier first checks whether this type may call the
        # number, and reports wrong arguments only after that: "unknown func", "invalid func",
        # "cannot use helper".
        call = bytes.fromhex("85000000") + number.to_bytes(4, "little")
        try:
            programs.load(self._spec(kind, call + _RETURN_0)).close()
        except VerifierError as error:
            if error.errno == errno.EPERM:
                return False
            refused = ("unknown func", "invalid func", "cannot use helper")
            return not any(text in error.log for text in refused)
        return True
