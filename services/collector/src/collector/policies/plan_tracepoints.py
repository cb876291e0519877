"""tracepoints: raw ones by their prototype in BTF, others by their format in tracefs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from collector.bpf.btf import FuncProto
from collector.errors import BtfError
from collector.policies import plan_calls
from collector.policies.check import Checker, Function, path_of
from collector.policies.check_types import number_type
from collector.policies.plan import (
    FunctionArgument,
    HookState,
    HookStatus,
    Mechanism,
    PlannedArgument,
    PlannedHook,
    RecordField,
    Source,
    SyscallArgument,
    SyscallArguments,
    SyscallNumber,
    Target,
)
from collector.policies.plan_arguments import plan_arguments
from collector.policies.plan_filters import retyped
from collector.policies.plan_functions import signature_of
from tracingpolicy.model import Argument, Tracepoint
from tracingpolicy.reading.report import nearest, quoted
from tracingpolicy.types import TYPES, ArgumentType, Family

_M, _T = Mechanism, ArgumentType
_FIELD = re.compile(
    r"^\s*field:(?P<declaration>.*?);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);"
    r"(?:\s*signed:(?P<signed>[01]);)?",
    re.MULTILINE,
)
_NAME = re.compile(r"(?P<name>\w+)\s*(?:\[(?P<length>\w*)\])?$")
_ADDRESSES = ("unsigned long", "u64", "__u64", "uintptr_t")  # that may hold a pointer
_RAW_SYSCALLS = ("sys_enter", "sys_exit")
# The format of raw_syscalls, from include/trace/events/syscalls.h: it needs no tracefs.
_COMMON = """
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;
	field:long id;	offset:8;	size:8;	signed:1;
"""
_FORMATS = {
    "sys_enter": _COMMON + "\tfield:unsigned long args[6];\toffset:16;\tsize:48;\tsigned:0;\n",
    "sys_exit": _COMMON + "\tfield:long ret;\toffset:16;\tsize:8;\tsigned:1;\n",
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a tracepoint's record."""

    name: str
    declaration: str
    place: RecordField
    bytes: int  # all elements

    @property
    def pointer(self) -> bool:
        return "*" in self.declaration and not self.place.elements


def fields_of(text: str) -> tuple[Field, ...]:
    """Return the fields in a format file of tracefs, common ones first."""
    fields = []
    for match in _FIELD.finditer(text):
        declaration, size = match["declaration"].strip(), int(match["size"])
        named = _NAME.search(declaration)
        name = named["name"] if named else declaration
        length = named["length"] if named else None
        dynamic = declaration.startswith("__data_loc")
        elements = 0
        if length is not None and not dynamic:
            elements = int(length) if length.isdecimal() and int(length) else 0
        one = size // elements if elements else size
        place = RecordField(
            name, int(match["offset"]), one, match["signed"] == "1", elements, dynamic
        )
        fields.append(Field(name, declaration, place, size))
    return tuple(fields)


def plan_tracepoint(
    checker: Checker, hook: Tracepoint
) -> tuple[tuple[PlannedHook, ...], HookStatus]:
    """Return the planned hook of an element of tracepoints, and its status."""
    planned = _plan_raw(checker, hook) if hook.raw else _plan_formatted(checker, hook)
    status = HookStatus(
        hook=hook,
        state=HookState.LOADED,
        mechanisms=(planned.entry,) if planned else (),
        note=planned.note if planned else "",
    )
    return (planned,) if planned else (), status


# --- raw --------------------------------------------------------------------------------------


def _prototype(checker: Checker, hook: Tracepoint) -> FuncProto | None:
    try:
        return checker.host.btf.tracepoint_proto(hook.event)
    except BtfError as error:
        near = ", ".join(error.nearest)
        message = f"there is no tracepoint {quoted(hook.event)}"
        checker.fail(
            hook.place, path_of(hook), message, f"nearest: {near}" if near else "", "event"
        )
        return None


def _plan_raw(checker: Checker, hook: Tracepoint) -> PlannedHook | None:
    proto = _prototype(checker, hook)
    if proto is None:
        return None
    function = Function(f"tracepoint {hook.event}", proto, checker.host.btf)
    args = plan_arguments(checker, hook, signature_of(function))
    return _finish(checker, hook, args, [_M.RAW_TRACEPOINT, _M.TP_BTF], proto)


def _finish(
    checker: Checker,
    hook: Tracepoint,
    args: tuple[PlannedArgument, ...] | None,
    mechanisms: list[Mechanism],
    proto: FuncProto | None = None,
) -> PlannedHook | None:
    title = f"tracepoint {hook.subsystem}/{hook.event}"
    refused = {}
    if _M.CALL_FUNCTIONS in mechanisms:
        refused[_M.CALL_FUNCTIONS] = plan_calls.why_not(checker.host)
    pairs: list[tuple[Mechanism, Mechanism | None]] = [(one, None) for one in mechanisms]
    chosen = checker.choose(hook, pairs, title, refused=refused)
    if args is None or chosen is None:
        return None
    entry, _, note = chosen
    target = Target(
        name=hook.event,
        attach=hook.event,
        subsystem=hook.subsystem,
        btf_id=proto.id if proto else 0,
        parameters=len(proto.params) if proto else 0,
    )
    if entry is _M.CALL_FUNCTIONS:
        target = plan_calls.at_functions(checker.host, target)
        args = tuple(map(plan_calls.of_functions, args))
    return PlannedHook(
        hook=retyped(checker, hook, args, (), None),
        entry=entry,
        targets=(target,),
        args=args,
        note=note,
    )


# --- by format --------------------------------------------------------------------------------


def _plan_formatted(checker: Checker, hook: Tracepoint) -> PlannedHook | None:
    raw = hook.subsystem == "raw_syscalls" and hook.event in _RAW_SYSCALLS
    text = _FORMATS[hook.event] if raw else _format(checker, hook)
    if text is None:
        return None
    fields = fields_of(text)
    planned = [
        _plan_field(checker, hook, argument, position, fields)
        for position, argument in enumerate(hook.args)
    ]
    args = tuple(one for one in planned if one is not None)
    complete = args if len(args) == len(planned) else None
    if not raw:
        return _finish(checker, hook, complete, [_M.TRACEPOINT])
    if complete is not None:
        # The same values without the record: cheaper, and without rights on tracefs.
        complete = tuple(_from_context(one, hook.event) for one in complete)
    proto = _prototype(checker, hook)
    mechanisms = [_M.RAW_TRACEPOINT, _M.TP_BTF]
    if hook.sample_frequent and not checker.policy.options.disable_kprobe_multi:
        mechanisms.insert(0, _M.CALL_FUNCTIONS)
    return _finish(checker, hook, complete, mechanisms, proto)


def _from_context(one: PlannedArgument, event: str) -> PlannedArgument:
    """Return an argument of raw_syscalls with its value in the raw tracepoint's context.

    TP_PROTO(struct pt_regs *regs, long id) and (struct pt_regs *regs, long ret).
    """
    assert isinstance(one.source, RecordField)
    sources: dict[str, Source] = {
        "id": FunctionArgument(1) if event == "sys_enter" else SyscallNumber(),
        "args": SyscallArguments() if one.type is _T.CONST_BUF else SyscallArgument(0),
        "ret": FunctionArgument(1),
    }
    source = sources.get(one.source.name)
    if source is None:  # common_type and the like: constants of the record
        return one
    return replace(one, source=source)


def _format(checker: Checker, hook: Tracepoint) -> str | None:
    tracefs = checker.host.tracefs
    if tracefs is None:
        message = "tracefs is not mounted here: the fields of a tracepoint are described there"
        allowed = "mount -t tracefs tracefs /sys/kernel/tracing; or raw: true with the arguments"
        checker.fail(hook.place, path_of(hook), message, allowed)
        return None
    try:
        return (tracefs / "events" / hook.subsystem / hook.event / "format").read_text()
    except PermissionError as error:
        message = f"tracefs: {error.filename}: {error.strerror}"
        checker.fail(hook.place, path_of(hook), message, "run with CAP_DAC_READ_SEARCH")
    except OSError:
        folder = tracefs / "events" / hook.subsystem
        if not folder.is_dir():
            names = [one.name for one in (tracefs / "events").iterdir() if one.is_dir()]
            _unknown(checker, hook, "subsystem", hook.subsystem, names)
        else:
            names = [one.name for one in folder.iterdir() if one.is_dir()]
            _unknown(checker, hook, "event", hook.event, names)
    return None


def _unknown(checker: Checker, hook: Tracepoint, key: str, name: str, names: list[str]) -> None:
    near = ", ".join(nearest(name, names))
    message = f"tracefs has no {key} {quoted(name)}"
    checker.fail(hook.place, path_of(hook), message, f"nearest: {near}" if near else "", key)


def _plan_field(
    checker: Checker,
    hook: Tracepoint,
    argument: Argument,
    position: int,
    fields: tuple[Field, ...],
) -> PlannedArgument | None:
    path = f"{path_of(hook)}.args[{position}]"
    shown = ", ".join(f"{i} {one.name}" for i, one in enumerate(fields))
    if argument.index >= len(fields):
        message = f"{hook.subsystem}/{hook.event} has no field {argument.index}"
        checker.fail(argument.place, path, message, shown, "index")
        return None
    field = fields[argument.index]
    if argument.resolve:
        message = "fields of a record have no members: resolve works with raw: true"
        checker.fail(argument.place, path, message, "", "resolve")
        return None
    kind, why = _field_type(argument, field)
    if why or kind is None:
        message = f"field {field.declaration}: {why}"
        key = ("type",) if argument.type is not _T.AUTO else ()
        checker.fail(argument.place, path, message, _fitting(field), *key)
        return None
    length = None
    if kind in (_T.CHAR_BUF, _T.CHAR_IOVEC):
        if not 0 < argument.size_arg_index <= len(fields):
            message = f"{hook.subsystem}/{hook.event} has no field {argument.size_arg_index - 1}"
            checker.fail(argument.place, path, message, shown, "sizeArgIndex")
            return None
        length = fields[argument.size_arg_index - 1].place
    place = field.place
    if TYPES[kind].family is Family.NUMBER:
        place = replace(place, elements=0)
    return PlannedArgument(
        argument=argument,
        type=kind,
        source=place,
        length=length,
        user_memory="__user" in field.declaration or hook.subsystem == "syscalls",
    )


def _field_type(argument: Argument, field: Field) -> tuple[ArgumentType | None, str]:
    """Return the type that a field is read as, and why it cannot be."""
    kind, place = argument.type, field.place
    if kind is _T.AUTO:
        return _automatic(argument, field)
    if kind is _T.NOP:
        return kind, ""
    if place.data_loc:
        return kind, "" if kind is _T.DATA_LOC else f"is no {kind.value}"
    if kind is _T.DATA_LOC:
        return kind, "is no data_loc"
    inline = kind is _T.STRING and place.size == 1
    # Of an array a number is the first element, as in Tetragon.
    first = TYPES[kind].family is Family.NUMBER and (TYPES[kind].bits or 32) <= 8 * place.size
    if place.elements and not first:
        return kind, "" if inline else f"an array is no {kind.value}"
    if TYPES[kind].family is Family.NUMBER or kind in (_T.FD, _T.FD_SOCK):
        if (TYPES[kind].bits or 32) > 8 * place.size:
            return kind, f"has {place.size} bytes, less than {kind.value}"
        return kind, ""
    address = field.pointer or field.declaration.startswith(_ADDRESSES)
    return kind, "" if place.size == 8 and address else f"is no pointer, so no {kind.value}"


def _automatic(argument: Argument, field: Field) -> tuple[ArgumentType | None, str]:
    place = field.place
    if place.data_loc:
        return None, "the type has to be written"
    if place.elements:
        if place.size == 8:
            return _T.CONST_BUF, ""
        text = place.size == 1 and "char" in field.declaration
        return (_T.STRING, "") if text else (None, "has no type")
    if field.pointer:
        if "char" in field.declaration and argument.size_arg_index:
            return _T.CHAR_BUF, ""
        return None, "the type of a pointer has to be written"
    if field.declaration.startswith("size_t"):
        return _T.SIZE_T, ""
    number = number_type(place.size, place.signed)
    return number, "" if number else "has no type"


def _fitting(field: Field) -> str:
    """Return types that a field can be read as, for a message."""
    if field.place.data_loc:
        return "data_loc"
    if field.place.elements:
        if field.place.size == 8:
            return "auto"
        return "string, nop" if "char" in field.declaration else "nop"
    if field.pointer:
        return "string, char_buf with sizeArgIndex, uint64"
    number = number_type(field.place.size, field.place.signed)
    return number.value if number else "nop"
