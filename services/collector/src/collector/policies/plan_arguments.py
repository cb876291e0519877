"""Arguments of hooks: position and type against the prototype, ``resolve``, lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from collector.bpf.btf import Btf, BtfKind
from collector.errors import BtfError
from collector.policies.check import Checker, path_of
from collector.policies.check_types import Shape, fitting, mismatch, shape_of_text
from collector.policies.plan import (
    CurrentTask,
    PlannedArgument,
    Resolved,
    ReturnedValue,
    Source,
    SyscallArgument,
)
from collector.policies.plan_registers import register_names, saved_register
from collector.policies.resolve import ResolveError, Root, resolve, root_of_parameter
from tracingpolicy.model import Argument, Hook
from tracingpolicy.reading.report import quoted, suggestion
from tracingpolicy.types import TYPES, ArgumentType, Family
from tracingpolicy.values import DataSource

SYSCALL_REGISTERS = 6  # that pass arguments of system calls
_PART = "{} is a pointer, and {} is a part of it"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of what is hooked."""

    name: str
    shape: Shape
    source: Source
    type: int = 0  # in ``Signature.btf``; 0: known as text only


@dataclass(frozen=True, slots=True)
class Signature:
    """What is hooked, as arguments see it."""

    name: str
    shown: str  # the prototype
    parameters: tuple[Parameter, ...] | None  # None: not known, every position is accepted
    btf: Btf
    source: Callable[[int], Source]  # of a position that is not in ``parameters``
    user_memory: bool = False  # pointers lead into the program
    registers: bool = False  # values are whole registers of the program
    result: Shape | None = None  # None: returns nothing
    result_type: int = 0


def plan_arguments(
    checker: Checker, hook: Hook, signature: Signature
) -> tuple[PlannedArgument, ...] | None:
    """Return the hook's ``args``; None after a mistake."""
    planned = [
        _argument(checker, hook, argument, position, signature)
        for position, argument in enumerate(hook.args)
    ]
    made = tuple(one for one in planned if one is not None)
    return made if len(made) == len(planned) else None


def _argument(
    checker: Checker, hook: Hook, argument: Argument, position: int, signature: Signature
) -> PlannedArgument | None:
    path = f"{path_of(hook)}.args[{position}]"
    parameters = signature.parameters
    missing = parameters is not None and argument.index >= len(parameters)
    if missing:
        message = f"{signature.name} has no argument {argument.index}"
        if not _has_register(signature, argument.index):
            checker.fail(argument.place, path, message, signature.shown, "index")
            return None
        checker.doubt(path, f"{message}: its register is read, whatever it holds")
    parameter = None
    if parameters is not None:
        parameter = _register_parameter(argument) if missing else parameters[argument.index]
    source = parameter.source if parameter else signature.source(argument.index)
    length = _length(checker, argument, path, signature)
    if argument.resolve:
        return _resolved(checker, argument, path, signature, parameter, source)
    if parameter is not None and not _check_shape(checker, argument, path, signature, parameter):
        return None
    return PlannedArgument(
        argument=argument,
        type=argument.type,
        source=source,
        length=length,
        user_memory=signature.user_memory,
    )


def _check_shape(
    checker: Checker, argument: Argument, path: str, signature: Signature, parameter: Parameter
) -> bool:
    """Check that the parameter can be read as the argument's type."""
    shape, kind = parameter.shape, argument.type
    if _is_part(shape, kind) and not signature.registers:
        checker.doubt(path, _PART.format(shape.text, kind.value))
        return True
    why = mismatch(shape, kind, signature.registers)
    if why:
        message = f"argument {argument.index} of {signature.name} cannot be read as "
        message += f"{kind.value}: {why}"
        checker.fail(argument.place, path, message, fitting(shape), "type")
    return not why


def _has_register(signature: Signature, index: int) -> bool:
    """Whether a position beyond the prototype can be read: of system calls, as by Tetragon."""
    return signature.source is SyscallArgument and index < SYSCALL_REGISTERS


def _register_parameter(argument: Argument) -> Parameter:
    """Return the parameter that stands for a register beyond the prototype of a system call."""
    return Parameter("", shape_of_text("unsigned long"), SyscallArgument(argument.index))


def _is_part(shape: Shape, kind: ArgumentType) -> bool:
    """Whether the lower bits of a pointer are read, as Tetragon reads them."""
    info = TYPES[kind]
    return shape.pointer and info.family is Family.NUMBER and 0 < info.bits < 64


def _length(checker: Checker, argument: Argument, path: str, signature: Signature) -> Source | None:
    if not argument.size_arg_index:
        return None
    index, parameters = argument.size_arg_index - 1, signature.parameters
    if parameters is None:
        return signature.source(index)
    if index < len(parameters):
        return parameters[index].source
    message = f"{signature.name} has {len(parameters)} arguments, so none is at {index + 1}"
    if _has_register(signature, index):
        checker.doubt(path, f"{message}: the length is what the register holds")
        return SyscallArgument(index)
    checker.fail(argument.place, path, message, signature.shown, "sizeArgIndex")
    return None


def _resolved(
    checker: Checker,
    argument: Argument,
    path: str,
    signature: Signature,
    parameter: Parameter | None,
    source: Source,
) -> PlannedArgument | None:
    try:
        root = _root(checker, argument, signature, parameter)
        way, kind = resolve(root, argument.resolve, argument.type)
    except (ResolveError, BtfError) as error:
        allowed = error.allowed if isinstance(error, ResolveError) else ""
        message = f"{signature.name}, argument {argument.index}: {error}"
        checker.fail(argument.place, path, message, allowed, "resolve")
        return None
    return PlannedArgument(
        argument=argument,
        type=kind,
        source=source,
        resolved=way,
        length=_length(checker, argument, path, signature),
        user_memory=root.user,
    )


def _root(
    checker: Checker, argument: Argument, signature: Signature, parameter: Parameter | None
) -> Root:
    """Return where the argument's path begins: btfType, or what the parameter points to."""
    user = signature.user_memory
    if argument.btf_type:
        btf = signature.btf
        if argument.btf_type_module:
            btf = checker.host.module(argument.btf_type_module)
        return Root(btf, _struct(btf, argument.btf_type), user)
    if parameter is None:
        raise ResolveError("the type of the argument is not known", "btfType: a struct")
    what = f"parameter {parameter.name or argument.index}"
    if parameter.type:
        return replace(root_of_parameter(signature.btf, parameter.type, what), user=user)
    if not parameter.shape.pointer:
        raise ResolveError(f"{what} is {parameter.shape.text}: no pointer, so it has no members")
    return Root(signature.btf, _struct(signature.btf, parameter.shape.target), user)


def _struct(btf: Btf, name: str) -> int:
    bare = name.removeprefix("struct ").removeprefix("union ")
    found = btf.find(bare, BtfKind.STRUCT, BtfKind.UNION, BtfKind.TYPEDEF)
    if found is None:
        near = btf.nearest_names(bare, BtfKind.STRUCT)
        raise ResolveError(f"there is no struct {bare}{suggestion(bare, near)}", ", ".join(near))
    return found


def plan_data(checker: Checker, hook: Hook) -> tuple[PlannedArgument, ...] | None:
    """Return the hook's ``data``; None after a mistake."""
    planned = []
    for position, argument in enumerate(hook.data):
        path = f"{path_of(hook)}.data[{position}]"
        if argument.source is DataSource.PT_REGS:
            planned.append(_register(checker, argument, path))
        else:
            planned.append(_of_task(checker, argument, path))
    made = tuple(one for one in planned if one is not None)
    return made if len(made) == len(planned) else None


def _register(checker: Checker, argument: Argument, path: str) -> PlannedArgument | None:
    name = str(argument.resolve[0])
    register = saved_register(checker.host.machine, name)
    if register is None or len(argument.resolve) > 1:
        names = register_names(checker.host.machine)
        message = f"{quoted(name)} is not a register{suggestion(name, names)}"
        checker.fail(argument.place, path, message, ", ".join(names), "resolve")
        return None
    return PlannedArgument(argument=argument, type=argument.type, source=register, user_memory=True)


def _of_task(checker: Checker, argument: Argument, path: str) -> PlannedArgument | None:
    btf = checker.host.btf
    try:
        root = Root(btf, _struct(btf, argument.btf_type or "task_struct"))
        way, kind = resolve(root, argument.resolve, argument.type)
    except (ResolveError, BtfError) as error:
        allowed = error.allowed if isinstance(error, ResolveError) else ""
        checker.fail(argument.place, path, str(error), allowed, "resolve")
        return None
    return PlannedArgument(argument=argument, type=kind, source=CurrentTask(), resolved=way)


def plan_returned(
    checker: Checker, hook: Hook, argument: Argument | None, signature: Signature
) -> PlannedArgument | None:
    """Return ``returnArg``; None if there is none, or after a mistake."""
    if argument is None:
        return None
    path = f"{path_of(hook)}.returnArg"
    if signature.result is None:
        message = f"{signature.name} returns nothing"
        checker.fail(argument.place, path, message, signature.shown)
        return None
    kind, way = argument.type, None
    if argument.resolve:
        try:
            if not signature.result_type:
                raise ResolveError("a system call returns a number")
            root = root_of_parameter(signature.btf, signature.result_type, "the result")
            way, kind = resolve(root, argument.resolve, argument.type)
        except ResolveError as error:
            checker.fail(argument.place, path, str(error), error.allowed, "resolve")
            return None
    elif _is_part(signature.result, kind) and not signature.registers:
        checker.doubt(path, _PART.format(signature.result.text, kind.value))
    elif why := mismatch(signature.result, kind, signature.registers):
        message = f"the result of {signature.name} cannot be read as {kind.value}: {why}"
        checker.fail(argument.place, path, message, fitting(signature.result), "type")
        return None
    return PlannedArgument(
        argument=argument,
        type=kind,
        source=ReturnedValue(),
        resolved=way,
        user_memory=signature.user_memory,
    )


__all__ = [
    "ArgumentType", "Parameter", "Resolved", "Signature", "plan_arguments", "plan_data",
    "plan_returned",
]  # fmt: skip
