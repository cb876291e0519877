"""Argument objects: elements of ``args`` and ``data``, and ``returnArg``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tracingpolicy.model import Argument, HookKind, ResolveStep
from tracingpolicy.reading.document import Node
from tracingpolicy.reading.fields import Fields
from tracingpolicy.reading.report import Report, quoted
from tracingpolicy.types import OF_OBJECTS, TYPES, TYPES_BY_NAME, ArgumentType, Family
from tracingpolicy.values import DataSource

MAX_ARGUMENTS = 16  # of one hook, with data
MAX_RESOLVE_STEPS = 10
_KEYS = (
    "index", "type", "sizeArgIndex", "returnCopy", "maxData", "label", "resolve", "source",
    "btfType", "btfTypeModule",
)  # fmt: skip
_T, _H = ArgumentType, HookKind
_BUFFERS = (_T.CHAR_BUF, _T.CHAR_IOVEC)
_SOURCES = {one.value: one for one in DataSource}
_RETURNS = (_H.KPROBE, _H.FENTRY, _H.UPROBE)
# What a program's own arguments can be; the other types read the kernel's memory.
_USER_TYPES = frozenset(
    {kind for kind, info in TYPES.items() if info.family is Family.NUMBER}
    | {_T.STRING, _T.CHAR_BUF, _T.CHAR_IOVEC, _T.SOCKADDR, _T.SOCKADDR_UN, _T.BPF_ATTR, _T.FD}
    | {_T.NOP, _T.AUTO}
) - {_T.SYSCALL64, *OF_OBJECTS}
# Registers and pointers for hooks in the kernel; more than C passes in registers never arrive.
MAX_INDEX = {_H.KPROBE: 11, _H.FENTRY: 11, _H.LSM: 11, _H.UPROBE: 7, _H.USDT: 11}
MAX_FIELD = 127
MAX_RAW_INDEX = 11
_MEMBER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Role:
    """Where an argument object stands."""

    hook: HookKind
    section: str = "args"  # args, data, returnArg, or unused: a returnArg without return: true
    raw: bool = False


def read_arguments(
    fields: Fields, hook: HookKind, raw: bool = False
) -> tuple[tuple[Argument | None, ...], tuple[Argument | None, ...]]:
    """Return ``args`` and ``data``; the place of a refused element is None."""
    found = []
    for section in ("args", "data"):
        role = Role(hook, section, raw)
        found.append(
            tuple(
                read_argument(fields.report, node, path, role)
                for path, node in fields.items(section)
            )
        )
    args, data = found
    if len(args) + len(data) > MAX_ARGUMENTS:
        message = f"{len(args)} args and {len(data)} data are too many"
        fields.fail(message, "args" if args else "data", f"{MAX_ARGUMENTS} together")
    copies = [one for one in args if one is not None and one.return_copy]
    for argument in copies[1:]:
        where = argument.place.of("returnCopy")
        message = f"{fields.path}.args: returnCopy in a second argument of the hook"
        fields.report.add(where, message, "one argument of a hook")
    return args, data


def read_argument(report: Report, node: Node, path: str, role: Role) -> Argument | None:
    """Return one argument object; None if its type or index is refused."""
    required = () if role.section == "data" else ("index",)
    fields = Fields(report, node, path, _KEYS, required=required)
    kind: ArgumentType | None = fields.choice("type", TYPES_BY_NAME, None, "a type")
    if kind is None and not fields.failed("type"):
        kind = ArgumentType.AUTO
    argument = Argument(
        index=fields.number("index", high=_highest(role)),
        type=kind or ArgumentType.AUTO,
        size_arg_index=fields.number("sizeArgIndex", high=15),
        return_copy=fields.flag("returnCopy"),
        max_data=fields.flag("maxData"),
        label=fields.text("label"),
        resolve=_resolve(fields, role),
        source=_source(fields, role),
        btf_type=fields.text("btfType"),
        btf_type_module=fields.text("btfTypeModule"),
        place=fields.place(),
    )
    if kind is None:
        return None
    if role.section == "unused":
        return argument
    accepted = _check_type(fields, argument, role)
    _check_buffer(fields, argument, role)
    return None if not accepted or fields.failed("index") else argument


def _highest(role: Role) -> int:
    if role.section != "args":
        return 0xFFFF_FFFF  # required by the schema, without a meaning
    if role.hook is HookKind.TRACEPOINT:
        return MAX_RAW_INDEX if role.raw else MAX_FIELD
    return MAX_INDEX[role.hook]


def _source(fields: Fields, role: Role) -> DataSource | None:
    if role.section != "data":
        if fields.text("source"):
            fields.fail("only elements of data have a source", "source")
        return None
    if not fields.has("source"):
        fields.fail("source is missing", "", ", ".join(_SOURCES))
        return None
    source: DataSource | None = fields.choice("source", _SOURCES, None, "a source of data")
    return source


def _resolve(fields: Fields, role: Role) -> tuple[ResolveStep, ...]:
    text = fields.text("resolve")
    if not text:
        if role.section == "data" and not fields.failed("resolve"):
            fields.fail("resolve is missing")
        return ()
    steps = resolve_steps(text)
    if steps is None:
        allowed = "member names joined by '.', each with [N] behind it: a.b[3].c"
        fields.fail(f"{quoted(text)} is not a path", "resolve", allowed)
        return ()
    if len(steps) > MAX_RESOLVE_STEPS:
        fields.fail(f"the path has {len(steps)} steps", "resolve", f"{MAX_RESOLVE_STEPS} steps")
        return ()
    return steps


def resolve_steps(text: str) -> tuple[ResolveStep, ...] | None:
    """Return the steps of a path as ``a.b[3].c``; None if it is malformed."""
    steps: list[ResolveStep] = []
    for position, part in enumerate(text.removeprefix(".").split(".")):
        name, *indexes = part.split("[")
        if name and _MEMBER.match(name):
            steps.append(name)
        elif name or not indexes or position > 0:  # a path may begin with [N]
            return None
        for index in indexes:
            number = index.removesuffix("]")
            if number == index or not (number.isascii() and number.isdecimal()):
                return None
            if len(number) > 9:
                return None
            steps.append(int(number))
    return tuple(steps)


def _check_type(fields: Fields, argument: Argument, role: Role) -> bool:
    """Check that the hook has arguments of the type."""
    kind = argument.type
    problem, allowed = _type_problem(argument, role)
    if not problem:
        return True
    key = "type" if fields.has("type") else ""
    shown = "the type is missing" if kind is _T.AUTO and not key else problem
    fields.fail(shown, key, allowed)
    return False


def _type_problem(argument: Argument, role: Role) -> tuple[str, str]:
    kind, hook = argument.type, role.hook
    fields_of_format = hook is _H.TRACEPOINT and not role.raw
    if kind is _T.CONST_BUF:
        return "const_buf cannot be requested", "auto: an array field is read as const_buf"
    if kind is _T.SYSCALL64 and hook is not _H.TRACEPOINT:
        return "syscall64 is a type of tracepoints", ""
    if kind is _T.DATA_LOC and not fields_of_format:
        return "data_loc is a type of tracepoints that are not raw", "string"
    if kind is _T.AUTO:
        open_types = hook in (_H.LSM, _H.UPROBE, _H.USDT) or role.section == "data"
        from_registers = argument.source is DataSource.PT_REGS
        if fields_of_format or (open_types and argument.resolve and not from_registers):
            return "", ""
        return "type auto works in tracepoints that are not raw", "a type by its name"
    if hook in (_H.UPROBE, _H.USDT) and kind not in _USER_TYPES and role.section != "data":
        message = f"{kind.value} is an object of the kernel: a program has none"
        return message, ", ".join(sorted(one.value for one in _USER_TYPES - {_T.AUTO}))
    if role.section == "returnArg" and (kind in _BUFFERS or kind is _T.NOP):
        return f"a returned value is no {kind.value}", ""
    return "", ""


def _check_buffer(fields: Fields, argument: Argument, role: Role) -> None:
    """Check where the length of a buffer comes from."""
    buffer = argument.type in _BUFFERS
    if argument.max_data and argument.type is not _T.CHAR_BUF:
        fields.doubt(f"{argument.type.value} has no more data: only char_buf has", "maxData")
    if argument.return_copy:
        if role.hook not in _RETURNS or role.section != "args":
            fields.fail(
                "only arguments of kprobes, fentries and uprobes can be read at return",
                "returnCopy",
            )
        elif not buffer:
            message = f"an argument of type {argument.type.value} is not read at return"
            fields.fail(message, "returnCopy", "char_buf and char_iovec")
    elif buffer and not argument.size_arg_index and not fields.failed("sizeArgIndex"):
        names = "sizeArgIndex or returnCopy" if role.hook in _RETURNS else "sizeArgIndex"
        fields.doubt(f"without {names} no bytes of {argument.type.value} are read")
