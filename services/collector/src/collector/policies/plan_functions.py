"""kprobes and fentries: which functions, by which mechanism, with which arguments.

Costs that the order of mechanisms rests on: a program on a system call's own function costs other
system calls nothing; the dispatcher on sys_enter costs each of them some 20 ns, once for all
policies; a kprobe costs about twice an fentry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from collector.bpf.btf import BtfKind
from collector.policies.check import Checker, Function, path_of
from collector.policies.check_types import shape_of, shape_of_text
from collector.policies.plan import (
    FunctionArgument,
    HookState,
    HookStatus,
    Mechanism,
    OverrideBy,
    PlannedArgument,
    PlannedHook,
    SavedRegister,
    SyscallArgument,
    Target,
)
from collector.policies.plan_arguments import (
    Parameter,
    Signature,
    plan_arguments,
    plan_data,
    plan_returned,
)
from collector.policies.plan_filters import retyped
from collector.policies.plan_lists import Name, expand, function_name
from collector.policies.plan_override import choose_override
from collector.policies.plan_returns import known_at_return
from collector.policies.syscalls import BARE, function_for, prototype
from collector.policies.trampolines import why_no_trampoline
from tracingpolicy.model import Kprobe
from tracingpolicy.reading.report import nearest, quoted
from tracingpolicy.types import ArgumentType
from tracingpolicy.values import ListType

_M = Mechanism
# Longer lists of system calls share the dispatcher: attaching each takes 20 ms and a program.
MANY_SYSCALLS = 20
# By the mechanism of the entry, the one at the return that can serve a hook alone: its programs
# have the registers of the call. A kretprobe has not.
_RETURN_ALONE = {_M.FENTRY: _M.FEXIT, _M.SYS_ENTER: _M.SYS_EXIT}
# Programs there may call bpf_d_path() (btf_allowlist_d_path of kernel/trace/bpf_trace.c).
_OPENING = "security_file_open"
REGISTERS = 6  # that pass arguments in C and that a probe can read


@dataclass(frozen=True, slots=True)
class _Found:
    """One function of a hook with its arguments."""

    target: Target
    signature: Signature


def plan_function(checker: Checker, hook: Kprobe) -> tuple[tuple[PlannedHook, ...], HookStatus]:
    """Return the planned hooks of an element of kprobes or fentries, and its status."""
    names = _names(checker, hook)
    found, missing = [], []
    for name in names:
        one = _find(checker, name)
        if one is None:
            missing.append(name)
        else:
            found.append(one)
    generated = _is_generated(checker, hook)
    if not generated:
        _check_served(checker, hook, [one for one in names if one not in missing])
    if missing and not hook.ignore_call_not_found:
        for name in missing:
            _not_found(checker, hook, name)
    state = HookState.LOADED
    if missing:
        state = HookState.PARTIAL_CALL_NOT_FOUND if found else HookState.CALL_NOT_FOUND
    planned = _planned(checker, hook, found, generated)
    return planned, HookStatus(
        hook=hook,
        state=state,
        mechanisms=_mechanisms(planned),
        missing=tuple(_shown(checker, name) for name in missing),
        note=planned[0].note if planned else "",
    )


def _names(checker: Checker, hook: Kprobe) -> list[Name]:
    if not hook.list_name:
        return [function_name(checker.host, hook.call, hook.syscall)]
    for number, one in enumerate(checker.policy.lists):
        if one.name == hook.list_name:
            return expand(checker, one, f"spec.lists[{number}]", hook.syscall)
    return []


def _is_generated(checker: Checker, hook: Kprobe) -> bool:
    one = checker.policy.list_named(hook.list_name) if hook.list_name else None
    return one is not None and one.type in (ListType.GENERATED_SYSCALLS, ListType.GENERATED_FTRACE)


def _shown(checker: Checker, name: Name) -> str:
    return f"{name.abi.prefixes[0]}{name.text}" if name.abi else name.text


def _check_served(checker: Checker, hook: Kprobe, names: list[Name]) -> None:
    """Refuse functions that exist, but serve no system call: __x64_sys_stat (fs/stat.c)."""
    for name in names:
        if name.abi is None:
            continue
        served = function_for(name.abi, name.text)
        if served != name.text and checker.host.syscalls.find(name.abi, name.text).number < 0:
            message = f"no system call of ABI {name.abi.name} is served by {_shown(checker, name)}"
            allowed = f"sys_{served}, which serves {name.text}"
            checker.fail(hook.place, path_of(hook), message, allowed, "call")


def _not_found(checker: Checker, hook: Kprobe, name: Name) -> None:
    host = checker.host
    if name.abi is None:
        near: list[str] = list(host.nearest_functions(name.text))
        message = f"there is no function {quoted(name.text)}"
        if module := host.module_of(name.text):
            # Of v5.11 on: Linux 5f9ae91f7c0d ("kbuild: Build kernel module BTFs ...").
            message = f"{name.text} is a function of the module {module}, which has no types here"
            allowed = f"{host.module_btf}/{module}: Linux 5.11, CONFIG_DEBUG_INFO_BTF_MODULES"
            checker.fail(hook.place, path_of(hook), message, allowed, "call")
            return
    else:
        served = function_for(name.abi, name.text)
        known = host.syscalls.functions(name.abi)
        near = [f"sys_{one}" for one in nearest(name.text, known)]
        if served != name.text:
            near = [f"sys_{served}"]
        message = f"there is no system call {quoted('sys_' + name.text)} of ABI {name.abi.name}"
    allowed = ", ".join(near)
    checker.fail(
        hook.place, path_of(hook), message, f"nearest: {allowed}" if allowed else "", "call"
    )


# --- finding ----------------------------------------------------------------------------------


def _find(checker: Checker, name: Name) -> _Found | None:
    if name.abi is not None:
        return _find_syscall(checker, name)
    function = checker.host.function(name.text)
    if function is None:
        return None
    target = Target(
        name=name.text,
        attach=name.text,
        module=function.module,
        btf_id=function.proto.id,
        parameters=len(function.proto.params),
    )
    return _Found(target, signature_of(function))


def find_target(checker: Checker, name: Name) -> Target | None:
    """Return what a program at a function or system call is attached to; None: there is none."""
    found = _find(checker, name)
    return found.target if found else None


def signature_of(function: Function, skip: int = 0) -> Signature:
    """Return how arguments see a function of the kernel."""
    btf, proto = function.btf, function.proto
    parameters = []
    for position, param in enumerate(proto.params):
        shape = shape_of(btf, param.type)
        # A register is wider than a narrow parameter: the bits above it are undefined.
        size = shape.size if shape.size in (1, 2, 4) else 8
        source = FunctionArgument(position, size, shape.signed and size < 8)
        parameters.append(Parameter(param.name, shape, source, param.type))
    inside = ", ".join(btf.type_name(param.type, param.name) for param in proto.params)
    result = btf.strip(proto.result)
    void = btf.type(result).kind is BtfKind.VOID
    return Signature(
        name=function.name,
        shown=f"{function.name}({inside or 'void'})",
        parameters=tuple(parameters),
        btf=btf,
        source=FunctionArgument,
        result=None if void else shape_of(btf, proto.result),
        result_type=0 if void else proto.result,
    )


def _find_syscall(checker: Checker, name: Name) -> _Found | None:
    host, abi = checker.host, name.abi
    assert abi is not None
    call = host.syscalls.find(abi, name.text)
    symbols = [f"{prefix}{name.text}" for prefix in abi.prefixes]
    # A system call without parameters has its function under another name in BTF
    # (SYSCALL_DEFINE0 of arch/x86/include/asm/syscall_wrapper.h).
    bare = f"{BARE}{name.text}"
    attach = next((one for one in (*symbols, bare) if host.has_function(one)), "")
    if not attach:
        return None
    parameters = prototype(call)
    if parameters is None and attach == bare:
        parameters = []
    made = None
    if parameters is not None:
        made = tuple(
            Parameter(
                text.rpartition(" ")[2],
                shape_of_text(text.rpartition(" ")[0]),
                SyscallArgument(position),
            )
            for position, text in enumerate(parameters)
        )
    proto = host.btf.func_proto(attach)
    target = Target(
        name=symbols[0] if attach == bare else attach,
        attach=attach,
        btf_id=proto.id,
        parameters=len(proto.params),
        syscall=call,
    )
    shown = f"{target.name}({', '.join(parameters)})" if parameters is not None else target.name
    signature = Signature(
        name=f"sys_{name.text}",
        shown=shown,
        parameters=made,
        btf=host.btf,
        source=SyscallArgument,
        user_memory=True,
        registers=True,
        result=shape_of_text("long"),
    )
    return _Found(target, signature)


# --- planning ---------------------------------------------------------------------------------


def _planned(
    checker: Checker, hook: Kprobe, found: list[_Found], generated: bool
) -> tuple[PlannedHook, ...]:
    """Return a planned hook for the functions and one for the system calls of a hook."""
    made = []
    for syscalls in (False, True):
        group = [one for one in found if (one.target.syscall is not None) is syscalls]
        if group:
            planned = _plan_group(checker, hook, group, generated)
            if planned is not None:
                made.append(planned)
    return tuple(made)


def _plan_group(
    checker: Checker, hook: Kprobe, group: list[_Found], generated: bool
) -> PlannedHook | None:
    arguments = []
    for one in group:
        # The prototypes in a generated list are unknown: registers are read unchanged.
        signature = replace(one.signature, parameters=None) if generated else one.signature
        arguments.append(plan_arguments(checker, hook, signature))
    data = plan_data(checker, hook)
    returned = plan_returned(
        checker, hook, hook.return_arg if hook.returns else None, group[0].signature
    )
    joined = hook.returns or any(one.return_copy for one in hook.args)
    if any(one is None for one in arguments) or data is None:
        return None
    args = arguments[0]
    assert args is not None
    targets = tuple(
        one.target if planned == args else replace(one.target, args=planned)
        for one, planned in zip(group, arguments, strict=True)
    )
    way = choose_override(checker, hook, targets, _pairs(checker, targets, joined))
    if way is None:
        return None
    override, pairs = way
    refused = {}
    if why := why_no_trampoline(checker.host, targets, (*args, *data)):
        refused[_M.FENTRY] = why
    if why := _why_no_registers(targets, (*args, *data)):
        refused.update(dict.fromkeys((_M.FENTRY, _M.KPROBE, _M.KPROBE_MULTI), why))
    chosen = checker.choose(hook, pairs, _title(hook, targets), refused=refused)
    if chosen is None:
        return None
    entry, leave, note = chosen
    _check_registers(checker, hook, entry, args)
    if entry is _M.FENTRY and all(one.attach == _OPENING for one in targets):
        args = tuple(replace(one, opened=_is_opened_file(one)) for one in args)
    if entry in _RETURN_ALONE and known_at_return(hook, targets, args, data, returned):
        entry, leave = _RETURN_ALONE[entry], None
    if entry in (_M.SYS_ENTER, _M.SYS_EXIT):
        name = "sys_enter" if entry is _M.SYS_ENTER else "sys_exit"
        targets = tuple(replace(one, attach=name) for one in targets)
    return PlannedHook(
        hook=retyped(checker, hook, args, data, returned),
        entry=entry,
        exit=leave,
        targets=targets,
        args=args,
        data=data,
        returned=returned,
        override=override,
        note=note,
    )


def _is_opened_file(one: PlannedArgument) -> bool:
    return one.type is ArgumentType.FILE and one.resolved is None


def _why_no_registers(targets: tuple[Target, ...], read: tuple[PlannedArgument, ...]) -> str:
    """Return why programs at the functions cannot read the registers of the program, or ""."""
    sources = [source for one in read for source in (one.source, one.length)]
    if any(isinstance(one, (SyscallArgument, SavedRegister)) for one in sources):
        for target in targets:
            if target.attach.startswith(BARE):
                return f"{target.attach} has no parameter with the program's registers"
    return ""


def _title(hook: Kprobe, targets: tuple[Target, ...]) -> str:
    return targets[0].name if len(targets) == 1 else hook.call


def _pairs(
    checker: Checker, targets: tuple[Target, ...], joined: bool
) -> list[tuple[Mechanism, Mechanism | None]]:
    """Return the mechanisms in the order of preference, each with that of the return."""
    calls = [one.syscall for one in targets if one.syscall is not None]
    fentry = (_M.FENTRY, _M.FEXIT)
    multi = (_M.KPROBE_MULTI, _M.KRETPROBE_MULTI)
    kprobe = (_M.KPROBE, _M.KRETPROBE)
    dispatcher = (_M.SYS_ENTER, _M.SYS_EXIT)
    pairs = [fentry, multi, kprobe]
    if checker.policy.options.disable_kprobe_multi:
        pairs.remove(multi)
    if calls and all(call.number >= 0 for call in calls):
        pairs.insert(0 if len(calls) > MANY_SYSCALLS else len(pairs), dispatcher)
    return [(entry, leave if joined else None) for entry, leave in pairs]


def _check_registers(
    checker: Checker, hook: Kprobe, entry: Mechanism, args: tuple[PlannedArgument, ...]
) -> None:
    """Refuse arguments that a kprobe would have to read from the stack."""
    if entry not in (_M.KPROBE, _M.KPROBE_MULTI):
        return
    for position, one in enumerate(args):
        if isinstance(one.source, FunctionArgument) and one.source.position >= REGISTERS:
            path = f"{path_of(hook)}.args[{position}]"
            message = f"argument {one.source.position} is on the stack, which a kprobe cannot read"
            checker.fail(one.argument.place, path, message, f"0 to {REGISTERS - 1}", "index")


def _mechanisms(planned: tuple[PlannedHook, ...]) -> tuple[Mechanism, ...]:
    used = [one for hook in planned for one in (hook.entry, hook.exit) if one is not None]
    if any(hook.override is OverrideBy.FMOD_RET for hook in planned):
        used.append(_M.FMOD_RET)
    return tuple(dict.fromkeys(used))
