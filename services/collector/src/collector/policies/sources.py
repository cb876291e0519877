"""Where a value comes from, as a C expression: one function per kind of `plan.Source`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from collector.policies import plan
from collector.policies.plan import Mechanism

# Contexts that are an array of 64-bit words: arguments, behind them the result of an fexit.
_WORDS = frozenset(
    {
        Mechanism.FENTRY, Mechanism.FEXIT, Mechanism.FMOD_RET, Mechanism.LSM,
        Mechanism.RAW_TRACEPOINT, Mechanism.TP_BTF,
    }
)  # fmt: skip
_DISPATCHED = frozenset({Mechanism.SYS_ENTER, Mechanism.SYS_EXIT})
_RETURN_PROBES = frozenset(
    {Mechanism.KRETPROBE, Mechanism.KRETPROBE_MULTI, Mechanism.URETPROBE, Mechanism.URETPROBE_MULTI}
)


_BY_COOKIE = frozenset(
    {
        Mechanism.KPROBE_MULTI, Mechanism.KRETPROBE_MULTI, Mechanism.UPROBE_MULTI,
        Mechanism.URETPROBE_MULTI,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frame:
    """How one program sees its context."""

    mechanism: Mechanism
    parameters: int = 0  # of the function: an fexit has the result behind them
    syscall: bool = False
    compat: bool = False  # the 32-bit calling convention of system calls
    together: bool = False  # all arguments of the system call are read at once, into `words`
    every_syscall: bool = False  # at sys_enter, for whichever call, behind the dispatcher

    @property
    def words(self) -> bool:
        """Whether the context is an array of arguments."""
        return self.mechanism in _WORDS

    @property
    def by_cookie(self) -> bool:
        """Whether the hook's index is the attach cookie."""
        return self.mechanism in _BY_COOKIE

    @property
    def dispatched(self) -> bool:
        """Whether the program is reached through the dispatcher of system calls."""
        return self.mechanism in _DISPATCHED

    @property
    def counts_calls(self) -> bool:
        """Whether the program counts every system call that it sees."""
        return self.mechanism is Mechanism.CALL_FUNCTIONS

    @property
    def at_return(self) -> bool:
        """Whether the function has returned."""
        return self.mechanism in _RETURN_PROBES or self.mechanism in (
            Mechanism.FEXIT, Mechanism.SYS_EXIT,
        )  # fmt: skip

    def saved_registers(self) -> str:
        """Return the address of the user registers of a system call."""
        if self.words or self.dispatched:
            return "ctx[0]"
        return "CONTEXT_WORD(ctx, REG_ARG0)"


def expression(source: plan.Source, frame: Frame) -> str:
    """Return the value of ``source`` as a C expression of 64 bits."""
    return _EXPRESSIONS[type(source)](source, frame)


def _function_argument(source: plan.FunctionArgument, frame: Frame) -> str:
    value = f"CONTEXT_WORD(ctx, REG_ARG{source.position})"
    if frame.words:
        value = f"CONTEXT_WORD(ctx, {8 * source.position})"
    if source.size == 8:
        return value
    return f"(u64)({_integer(source.size, source.signed)}){value}"  # undefined above its width


def _syscall_argument(source: plan.SyscallArgument, frame: Frame) -> str:
    register = syscall_register(source.position, frame)
    if frame.together:
        return f"SYSCALL_WORD(words, {register})"
    return f"SAVED_REGISTER({frame.saved_registers()}, {register})"


def syscall_register(position: int, frame: Frame) -> str:
    """Return the offset of an argument of a system call in struct pt_regs."""
    if position == 0 and frame.at_return:
        return "REG_COMPAT_ARG0_AT_RETURN" if frame.compat else "REG_ARG0_AT_RETURN"
    if frame.compat:
        return f"REG_COMPAT_ARG{position}"
    return "REG_SYSCALL_ARG3" if position == 3 else f"REG_ARG{position}"


def _syscall_number(source: plan.SyscallNumber, frame: Frame) -> str:
    if frame.mechanism is Mechanism.SYS_ENTER:
        return "ctx[1]"
    # Four bytes on arm64, where nothing sets the next four.
    return f"(u64)(s64)(s32)SAVED_REGISTER({frame.saved_registers()}, REG_SYSCALL_NUMBER)"


def _returned(source: plan.ReturnedValue, frame: Frame) -> str:
    if frame.mechanism is Mechanism.SYS_EXIT:
        return "ctx[1]"
    if frame.words:
        return f"CONTEXT_WORD(ctx, {8 * frame.parameters})"
    return "CONTEXT_WORD(ctx, REG_RETURN)"


def _record_field(source: plan.RecordField, frame: Frame) -> str:
    letter = "s" if source.signed else "u"
    if source.elements or source.data_loc:
        return f"(u64)((void *)ctx + {source.offset})"
    bits = 8 * source.size
    return f"(u64)*({letter}{bits} *)((void *)ctx + {source.offset})"


def _saved_register(source: plan.SavedRegister, frame: Frame) -> str:
    if frame.mechanism in (Mechanism.UPROBE, Mechanism.UPROBE_MULTI):
        register = f"CONTEXT_WORD(ctx, {source.offset})"
    elif frame.syscall and not frame.at_return:
        register = f"SAVED_REGISTER({frame.saved_registers()}, {source.offset})"
    elif frame.words or frame.dispatched:
        register = f"SAVED_REGISTER(user_registers(), {source.offset})"
    else:
        register = f"CONTEXT_WORD(ctx, {source.offset})"
    if source.shift:
        register = f"({register} >> {source.shift})"
    return register if source.size == 8 else f"(u64)(u{8 * source.size}){register}"


def _current_task(source: plan.CurrentTask, frame: Frame) -> str:
    return "current_task()"


def _constant(source: plan.Constant, frame: Frame) -> str:
    return f"{source.value & (1 << 64) - 1:#x}ull"


def _program_memory(source: plan.ProgramMemory, frame: Frame) -> str:
    address = f"CONTEXT_WORD(ctx, {source.base})"
    if source.index is not None:
        address += f" + CONTEXT_WORD(ctx, {source.index}) * {source.scale}"
    return f"(u64)USER({_integer(source.size, source.signed)}, {address} + ({source.offset}))"


def _program_register(source: plan.ProgramRegister, frame: Frame) -> str:
    register = f"CONTEXT_WORD(ctx, {source.offset})"
    return f"(u64)({_integer(source.size, source.signed)}){register}"


def _integer(size: int, is_signed: bool) -> str:
    return f"{'s' if is_signed else 'u'}{8 * size}"


def _syscall_arguments(source: plan.SyscallArguments, frame: Frame) -> str:
    return frame.saved_registers()


_EXPRESSIONS: dict[type, Callable[[Any, Frame], str]] = {
    plan.FunctionArgument: _function_argument,
    plan.SyscallArgument: _syscall_argument,
    plan.SyscallArguments: _syscall_arguments,
    plan.SyscallNumber: _syscall_number,
    plan.ReturnedValue: _returned,
    plan.RecordField: _record_field,
    plan.SavedRegister: _saved_register,
    plan.CurrentTask: _current_task,
    plan.Constant: _constant,
    plan.ProgramMemory: _program_memory,
    plan.ProgramRegister: _program_register,
}
