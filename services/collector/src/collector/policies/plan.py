"""The plan of a checked policy on this kernel: planned hooks, each with its mechanism and targets.

The planner makes them, the translator turns each into C, the manager loads and attaches them. A
hook of the document becomes one planned hook, or several where its functions need different
mechanisms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from tracingpolicy.model import Argument, Hook, Policy
from tracingpolicy.selectors import Action
from tracingpolicy.types import ArgumentType


class Mechanism(Enum):
    """How a program is attached; the value is what users see."""

    FENTRY = "fentry"
    FEXIT = "fexit"
    FMOD_RET = "fmod_ret"
    LSM = "lsm"
    KPROBE = "kprobe"
    KRETPROBE = "kretprobe"
    KPROBE_MULTI = "kprobe.multi"
    KRETPROBE_MULTI = "kretprobe.multi"
    SYS_ENTER = "raw_tracepoint sys_enter"  # dispatcher by system call number
    SYS_EXIT = "raw_tracepoint sys_exit"
    CALL_FUNCTIONS = "kprobe.multi of all system calls"
    RAW_TRACEPOINT = "raw_tracepoint"
    TP_BTF = "tp_btf"
    TRACEPOINT = "tracepoint"  # perf; the context is the record of the tracefs format
    UPROBE = "uprobe"
    URETPROBE = "uretprobe"
    UPROBE_MULTI = "uprobe.multi"
    URETPROBE_MULTI = "uretprobe.multi"


# --- where a value comes from -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FunctionArgument:
    """``ctx[position]`` of tracing programs and raw tracepoints; of probes, the register that
    passes the argument in C.

    Where the parameter is narrower than a register, the bits above it are undefined: take
    ``size`` bytes, extended by their sign if ``signed``.
    """

    position: int
    size: int = 8
    signed: bool = False


@dataclass(frozen=True, slots=True)
class SyscallArgument:
    """An argument in the user registers that the kernel saved at the system call's entry."""

    position: int


@dataclass(frozen=True, slots=True)
class SyscallArguments:
    """All six of them: field ``args`` of raw_syscalls/sys_enter."""


@dataclass(frozen=True, slots=True)
class SyscallNumber:
    """The number in the saved user registers, negative inside no system call."""


@dataclass(frozen=True, slots=True)
class ReturnedValue:
    """What the function or system call returned."""


@dataclass(frozen=True, slots=True)
class RecordField:
    """A field of a perf tracepoint's record."""

    name: str
    offset: int
    size: int  # of one element
    signed: bool
    elements: int = 0  # 0: no array
    data_loc: bool = False


@dataclass(frozen=True, slots=True)
class SavedRegister:
    """A register of the current task's user registers, or of the probed program."""

    offset: int  # in struct pt_regs
    size: int  # bytes that the register's name means: 8 rax, 4 eax, 2 ax, 1 al
    shift: int = 0  # bits to the right first: 8 for ah


@dataclass(frozen=True, slots=True)
class CurrentTask:
    """The address of the current ``struct task_struct``."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A number that the probe's note holds."""

    value: int


@dataclass(frozen=True, slots=True)
class ProgramMemory:
    """User memory at ``base + index * scale + offset``, of a USDT argument."""

    base: int  # offset of the register in struct pt_regs
    offset: int
    size: int
    signed: bool
    index: int | None = None  # offset of the index register in struct pt_regs
    scale: int = 1


@dataclass(frozen=True, slots=True)
class ProgramRegister:
    """A register of the program, of a USDT argument."""

    offset: int  # in struct pt_regs
    size: int
    signed: bool


Source = (
    FunctionArgument
    | SyscallArgument
    | SyscallArguments
    | SyscallNumber
    | ReturnedValue
    | RecordField
    | SavedRegister
    | CurrentTask
    | Constant
    | ProgramMemory
    | ProgramRegister
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A way through structures, from the address that the source gives.

    Add the first offset, read a pointer there, add the next offset to it, and so on; at the last
    address stands the value: ``size`` bytes of it, or, where ``size`` is 0, the object itself whose
    address the type's reader takes. Depth N of an error message is position N in ``offsets``.
    """

    offsets: tuple[int, ...]
    size: int
    signed: bool = False
    type_name: str = ""  # the C type, for messages
    user: bool = False  # the memory is the program's


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedArgument:
    """An argument with its final type and where its value comes from."""

    argument: Argument
    type: ArgumentType  # never AUTO
    source: Source
    resolved: Resolved | None = None
    length: Source | None = None  # of a buffer, from sizeArgIndex
    user_memory: bool = False  # pointers point into the program
    opened: bool = False  # a file of which bpf_d_path() may make the path


# --- where a program is attached --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Syscall:
    """A system call of one ABI: x64, i386, arm64 or arm32."""

    number: int
    name: str  # without sys_
    abi: str
    compat: bool = False  # a 32-bit call on a 64-bit kernel; its id carries bit 31

    @property
    def id(self) -> int:
        return self.number | (0x8000_0000 if self.compat else 0)


@dataclass(frozen=True, slots=True)
class CallFunction:
    """The kernel's function of one system call."""

    number: int
    symbol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One place to attach to."""

    name: str  # in the event: function, LSM hook, tracepoint event or symbol
    attach: str  # what is attached to: symbol, bpf_lsm_ hook, tracepoint, or "" in a program
    module: str = ""  # kernel module that has the function, "" for the kernel itself
    btf_id: int = 0  # of the function, or of the typedef btf_trace_ for tp_btf
    parameters: int = 0  # of the attached function: fexit has its result behind them
    syscall: Syscall | None = None
    subsystem: str = ""  # of a tracepoint
    mmap_events: bool = False  # runs only while perf events ask for mappings
    path: str = ""  # of a program's file, to be opened
    offset: int = 0  # in that file
    ref_ctr_offset: int = 0
    args: tuple[PlannedArgument, ...] | None = None  # where they differ by target: USDT locations
    # Of CALL_FUNCTIONS: the functions that are always hooked, and the calls that may be sampled.
    functions: tuple[str, ...] = ()
    calls: tuple[CallFunction, ...] = ()


class OverrideBy(Enum):
    """The mechanism that replaces the result of a function; the value is what users see."""

    FMOD_RET = "fmod_ret"  # a gate of this kind behind the policy's program
    LSM = "lsm"
    RESULT = "result of the program"  # an LSM program that has to be the hook itself
    HELPER = "bpf_override_return"
    REGISTERS = "registers"  # of the program, at a uprobe


@dataclass(frozen=True, slots=True)
class RegisterMove:
    """One assignment of argRegs: ``to`` becomes value, or register + value, or memory there."""

    to: int  # offset in struct pt_regs
    value: int
    register: int | None = None
    size: int = 8
    memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedHook:
    """A hook of the document by one pair of mechanisms."""

    hook: Hook
    entry: Mechanism
    exit: Mechanism | None = None  # where something is read at return; `entry` is it if that is all
    targets: tuple[Target, ...]
    args: tuple[PlannedArgument, ...] = ()
    data: tuple[PlannedArgument, ...] = ()
    returned: PlannedArgument | None = None
    sleepable: bool = False
    override: OverrideBy | None = None  # None: no selector has the action Override
    # Of an Override that changes registers: its assignments; none means to return argError.
    register_moves: Mapping[Action, tuple[RegisterMove, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    note: str = ""  # why not the first choice, for the user


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEnforcer:
    """Functions at which a notified thread is stopped."""

    entry: Mechanism
    override: OverrideBy | None  # None: notifications of this policy carry signals only
    targets: tuple[Target, ...]


class HookState(Enum):
    """The outcome of planning one hook of the document."""

    LOADED = "loaded"
    CALL_NOT_FOUND = "call_not_found"
    PARTIAL_CALL_NOT_FOUND = "partial_call_not_found"
    DIGEST_REJECTED = "digest_rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookStatus:
    """The state of one hook of the document, with the mechanisms that serve it."""

    hook: Hook
    state: HookState
    mechanisms: tuple[Mechanism, ...] = ()
    missing: tuple[str, ...] = ()  # functions that were skipped
    doubts: tuple[str, ...] = ()  # no mistakes, and hardly what the author meant
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A policy on this kernel."""

    policy: Policy
    hooks: tuple[PlannedHook, ...]
    enforcers: tuple[PlannedEnforcer, ...] = ()
    statuses: tuple[HookStatus, ...] = ()
    # list name -> ids of its system calls, for InMap; 32-bit calls carry bit 31
    syscall_ids: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def notices(self) -> list[str]:
        """Return what is no mistake, and hardly what the author meant."""
        doubts = (doubt for status in self.statuses for doubt in status.doubts)
        return [*self.policy.notices(), *doubts]
