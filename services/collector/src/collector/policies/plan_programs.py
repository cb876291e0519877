"""uprobes and usdts: places in files of programs, and what is read there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from collector.bpf.btf import Btf
from collector.errors import BtfError
from collector.policies.check import Checker, path_of
from collector.policies.check_types import shape_of_text
from collector.policies.elf import Elf, ElfError
from collector.policies.elf_usdt import Location, locations, probe_names, source_of
from collector.policies.plan import (
    FunctionArgument,
    HookState,
    HookStatus,
    Mechanism,
    PlannedArgument,
    PlannedHook,
    ProgramMemory,
    ProgramRegister,
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
from collector.policies.plan_functions import REGISTERS
from collector.policies.plan_override import places, plan_register_override
from collector.policies.plan_registers import saved_register
from tracingpolicy.actions import ActionKind
from tracingpolicy.model import Hook, Uprobe, Usdt
from tracingpolicy.reading.report import nearest, quoted
from tracingpolicy.selectors import Action
from tracingpolicy.types import TYPES, ArgumentType

_M = Mechanism
Planned = tuple[tuple[PlannedHook, ...], HookStatus]


@contextmanager
def _opened(checker: Checker, hook: Uprobe | Usdt) -> Iterator[Elf | None]:
    """Open the hook's file; None after a mistake."""
    path = os.path.abspath(hook.path)
    try:
        elf = Elf.open(path)
    except ElfError as error:
        checker.fail(hook.place, path_of(hook), str(error), "", "path")
        yield None
        return
    try:
        yield elf
    finally:
        elf.close()


def plan_uprobe(checker: Checker, hook: Uprobe) -> Planned:
    """Return the planned hook of an element of uprobes, and its status."""
    nothing = (), HookStatus(hook=hook, state=HookState.LOADED)
    with _opened(checker, hook) as elf:
        if elf is None:
            return nothing
        if not _has_digest(elf, hook):
            if hook.ignore_digest_failure:
                return (), HookStatus(hook=hook, state=HookState.DIGEST_REJECTED)
            message = f"{elf.path} has none of the digests"
            checker.fail(hook.place, path_of(hook), message, "", "binaryDigests")
            return nothing
        narrow = elf.pointer_size == 4
        targets = _targets(checker, hook, elf)
        jumps = _jumps(checker, hook, elf, targets or ())
    override, moves = plan_register_override(checker, hook, jumps)
    signature = _signature(checker, hook, hook.btf_path)
    if signature is None or targets is None:
        return nothing
    if narrow and checker.host.machine == "x86_64":
        signature = _on_the_stack(signature)
    args = plan_arguments(checker, hook, signature)
    data = plan_data(checker, hook)
    returned = plan_returned(checker, hook, hook.return_arg if hook.returns else None, signature)
    joined = hook.returns or any(one.return_copy for one in hook.args)
    chosen = checker.choose(hook, _pairs(checker, joined), hook.path)
    if args is None or data is None or chosen is None:
        return nothing
    entry, leave, note = chosen
    planned = PlannedHook(
        hook=retyped(checker, hook, args, data, returned),
        entry=entry,
        exit=leave,
        targets=targets,
        args=args,
        data=data,
        returned=returned,
        override=override,
        register_moves=moves,
        note=note,
    )
    _check_set(checker, hook, planned.args)
    used = (entry, leave) if leave else (entry,)
    status = HookStatus(hook=hook, state=HookState.LOADED, mechanisms=used, note=note)
    return (planned,), status


def _pairs(checker: Checker, joined: bool) -> list[tuple[Mechanism, Mechanism | None]]:
    pairs = [(_M.UPROBE_MULTI, _M.URETPROBE_MULTI), (_M.UPROBE, _M.URETPROBE)]
    if checker.policy.options.disable_uprobe_multi:
        del pairs[0]
    return [(entry, leave if joined else None) for entry, leave in pairs]


def _has_digest(elf: Elf, hook: Uprobe) -> bool:
    """Return whether any digest fits; none written is one that fits."""
    if not hook.digests:
        return True
    return any(
        one.value == (elf.build_id() if one.algorithm == "build-id" else elf.digest(one.algorithm))
        for one in hook.digests
    )


def _targets(checker: Checker, hook: Uprobe, elf: Elf) -> tuple[Target, ...] | None:
    """Return the places of a uprobe as offsets in its file."""
    found: list[tuple[str, int]] = []
    complete = True
    for position, symbol in enumerate(hook.symbols):
        address = elf.symbol(symbol.name)
        offset = elf.offset_of(address + symbol.offset) if address is not None else None
        if offset is None:
            near = ", ".join(elf.nearest_symbols(symbol.name))
            message = f"{elf.path} has no symbol {quoted(symbol.name)}"
            if address is not None:
                message = f"{symbol.text} is not in the file {elf.path}"
            allowed = f"nearest: {near}" if near else ""
            checker.fail(hook.place, path_of(hook), message, allowed, "symbols", position)
            complete = False
        else:
            found.append((symbol.text, offset))
    for position, address in enumerate(hook.addresses):
        offset = elf.offset_of(address)
        if offset is None:
            message = f"address {address:#x} is not in the file {elf.path}"
            checker.fail(hook.place, path_of(hook), message, "", "addrs", position)
            complete = False
        else:
            found.append(("", offset))
    for position, offset in enumerate(hook.offsets):
        if offset >= len(elf.data):
            message = f"offset {offset:#x} is behind the end of {elf.path}"
            allowed = f"below {len(elf.data):#x}"
            checker.fail(hook.place, path_of(hook), message, allowed, "offsets", position)
            complete = False
        found.append(("", offset))
    if not complete:
        return None
    counters = hook.ref_ctr_offsets or (0,) * len(found)
    return tuple(
        Target(name=name, attach="", path=elf.path, offset=offset, ref_ctr_offset=counter)
        for (name, offset), counter in zip(found, counters, strict=True)
    )


def _jumps(
    checker: Checker, hook: Uprobe, elf: Elf, targets: tuple[Target, ...]
) -> dict[Action, int]:
    """Return how far the functions of argNew... are from the place of a uprobe."""
    jumps = {}
    for path, action in places(hook, ActionKind.OVERRIDE):
        address, key = action.arg_new_address, "argNewAddr"
        offset = action.arg_new_offset
        if action.arg_new_symbol:
            address, key = elf.symbol(action.arg_new_symbol), "argNewSymbol"
            if address is None:
                near = ", ".join(elf.nearest_symbols(action.arg_new_symbol))
                message = f"{elf.path} has no symbol {quoted(action.arg_new_symbol)}"
                allowed = f"nearest: {near}" if near else ""
                checker.fail(action.place, path, message, allowed, key)
        if address is not None:
            offset = elf.offset_of(address)
            if offset is None:
                checker.fail(
                    action.place, path, f"{address:#x} is not in the file {elf.path}", "", key
                )
        if offset is None:
            continue
        if len(targets) != 1:
            message = "a jump needs one place: the distance differs between several"
            checker.fail(action.place, path, message, "one symbol, offset or address a hook")
            continue
        jumps[action] = offset - targets[0].offset
    return jumps


def _check_set(checker: Checker, hook: Hook, args: tuple[PlannedArgument, ...]) -> None:
    """Refuse Set on what cannot be written: memory of four bytes, or a register."""
    acting = checker.host.acting
    for path, action in places(hook, ActionKind.SET):
        if action.arg_index >= len(args):
            continue  # a mistake of the document
        source, why, allowed = args[action.arg_index].source, "", ""
        if isinstance(source, ProgramMemory):
            why, allowed = acting.why_no_memory_writes(), "Sigkill or Signal"
            if source.size != 4:
                why, allowed = f"the argument has {source.size} bytes", "an argument of 4 bytes"
        elif isinstance(source, FunctionArgument | ProgramRegister):
            why = acting.why_no_register_writes()
            why = why and f"the registers of a program cannot be written here: {why}"
            allowed = "an argument in memory, a kernel newer than Linux 6.18; Sigkill or Signal"
        else:
            why, allowed = "the argument is a constant of the program", "memory, or a register"
        if why:
            checker.fail(action.place, path, f"Set: {why}", allowed, "argIndex")


def _signature(checker: Checker, hook: Uprobe | Usdt, btf_path: str) -> Signature | None:
    """Return how arguments see a function of a program: registers of unknown meaning."""
    btf = checker.host.btf
    if btf_path:
        try:
            btf = _program_btf(os.path.abspath(btf_path))
        except (ElfError, BtfError) as error:
            checker.fail(hook.place, path_of(hook), str(error), "", "btfPath")
            return None
    word = shape_of_text("void *")
    parameters = tuple(Parameter("", word, FunctionArgument(number)) for number in range(REGISTERS))
    return Signature(
        name="the function",
        shown=f"arguments 0 to {REGISTERS - 1} are in registers",
        parameters=parameters,
        btf=btf,
        source=FunctionArgument,
        user_memory=True,
        registers=True,
        result=word,
    )


def _on_the_stack(signature: Signature) -> Signature:
    """Return the same for a 32-bit program of x86: arguments are above the return address."""
    stack = saved_register("x86_64", "rsp")
    assert stack is not None

    def argument(number: int) -> ProgramMemory:
        return ProgramMemory(stack.offset, 4 * (number + 1), 4, signed=False)

    word = shape_of_text("void *")
    parameters = tuple(Parameter("", word, argument(number)) for number in range(REGISTERS))
    shown = f"arguments 0 to {REGISTERS - 1} are on the stack of a 32-bit program, 4 bytes each"
    return replace(signature, shown=shown, parameters=parameters, source=argument)


def _program_btf(path: str) -> Btf:
    """Return types from a BTF file or from the .BTF section of an ELF file."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ElfError(f"{path}: {error.strerror}") from None
    if data[:4] == b"\x7fELF":
        section = Elf.read(data, path).section(".BTF")
        if section is None:
            raise ElfError(f"{path}: no section .BTF")
        data = bytes(section)
    return Btf(data, source=f"btf: {path}")


# --- USDT -------------------------------------------------------------------------------------


def plan_usdt(checker: Checker, hook: Usdt) -> Planned:
    """Return the planned hook of an element of usdts, and its status."""
    nothing = (), HookStatus(hook=hook, state=HookState.LOADED)
    with _opened(checker, hook) as elf:
        if elf is None:
            return nothing
        found = locations(elf, hook.provider, hook.name)
        if not found:
            wanted = f"{hook.provider}/{hook.name}"
            names = probe_names(elf)
            near = ", ".join(nearest(wanted, names))
            message = f"{elf.path} has no probe {quoted(wanted)}"
            allowed = f"nearest: {near}" if near else f"of {len(names)}: {', '.join(names[:10])}"
            allowed = allowed if names else "a program with probes: this one has none"
            checker.fail(hook.place, path_of(hook), message, allowed, "name")
            return nothing
        path = elf.path
    signature = _signature(checker, hook, hook.btf_path)
    if signature is None:
        return nothing
    arguments = [_usdt_arguments(checker, hook, place, signature) for place in found]
    chosen = checker.choose(hook, _pairs(checker, joined=False), hook.path)
    args = arguments[0]
    if args is None or chosen is None or any(one is None for one in arguments):
        return nothing
    targets = tuple(
        Target(
            name=hook.name,
            attach="",
            path=path,
            offset=place.offset,
            ref_ctr_offset=place.semaphore,
            args=None if own == args else own,
        )
        for place, own in zip(found, arguments, strict=True)
    )
    entry, _, note = chosen
    planned = PlannedHook(
        hook=retyped(checker, hook, args, (), None),
        entry=entry,
        targets=targets,
        args=args,
        note=note,
    )
    for own in arguments:
        _check_set(checker, hook, own or ())
    return (planned,), HookStatus(hook=hook, state=HookState.LOADED, mechanisms=(entry,), note=note)


def _usdt_arguments(
    checker: Checker, hook: Usdt, place: Location, signature: Signature
) -> tuple[PlannedArgument, ...] | None:
    """Return the arguments as one location of the probe has them."""
    machine, parameters = checker.host.machine, []
    for text in place.arguments:
        made = source_of(machine, text)
        shape = replace(shape_of_text("void *"), text=text, size=made[1] if made else 0)
        source = made[0] if made else FunctionArgument(0)
        parameters.append(Parameter("", shape, source))
    for position, argument in enumerate(hook.args):
        if argument.index < len(parameters) and not parameters[argument.index].shape.size:
            text = parameters[argument.index].shape.text
            path = f"{path_of(hook)}.args[{position}]"
            checker.fail(argument.place, path, f"the place {text} is not supported", "", "index")
            return None
        _check_width(checker, hook, argument.index, position, parameters)
    own = replace(
        signature,
        name=f"{hook.provider}/{hook.name}",
        shown=f"its arguments: {' '.join(place.arguments) or 'none'}",
        parameters=tuple(parameters),
    )
    return plan_arguments(checker, hook, own)


def _check_width(
    checker: Checker, hook: Hook, index: int, position: int, parameters: list[Parameter]
) -> None:
    """Refuse a pointer type on an argument that is smaller than a pointer."""
    if index >= len(parameters):
        return
    kind, size = hook.args[position].type, parameters[index].shape.size
    reads_memory = not TYPES[kind].bits and kind not in (ArgumentType.NOP, ArgumentType.FD)
    if reads_memory and size < 8:
        path = f"{path_of(hook)}.args[{position}]"
        message = f"argument {index} has {size} bytes: no pointer, so no {kind.value}"
        checker.fail(hook.args[position].place, path, message, "int32, uint32, ...", "type")
