"""Numbers and capability sets: a register, a field, or what `resolve` leads to.

A number is kept in 64 bits, sign-extended where its type is signed: narrow arguments have anything
in the upper bits of their register. Capability sets are passed by address.
"""

from __future__ import annotations

from collector.policies.arguments.base import Arg, Cost, Unit, fetch_address, write_guarded
from collector.policies.ctext import Lines
from collector.policies.plan import RecordField
from collector.policies.selectors import capabilities, cel, numbers
from collector.policies.sources import Frame
from tracingpolicy.operators import Operator
from tracingpolicy.selectors import ValueFilter
from tracingpolicy.types import TYPES, ArgumentType, Family


class NumberReader:
    """Integers of every width, capability and bpf_cmd."""

    headers: tuple[str, ...] = ("record.h",)

    def cost(self, arg: Arg, filters: list[ValueFilter]) -> Cost:
        # What First remembers is what passed all other filters.
        first = any(one.operator is Operator.FIRST for one in filters)
        return Cost.CHANGE if first else Cost.NUMBER

    def fetch(self, arg: Arg, frame: Frame, out: Lines) -> None:
        fetch_address(arg, frame, out)
        cast = narrow(arg)
        if cast:
            out.add(f"{arg.name} = {cast}{arg.name};")

    def read(self, arg: Arg, filters: list[ValueFilter], out: Lines) -> bool:
        return False

    def condition(self, arg: Arg, one: ValueFilter, filters: list[ValueFilter], unit: Unit) -> str:
        if one.operator is Operator.CEL:
            return cel.condition(one, arg.section)
        if one.operator is Operator.FIRST:
            unit.headers.add("facts.h")
            unit.maps.facts()
            return f"first_use(hook, {arg.name})"
        info = TYPES[arg.type]
        inner = numbers.condition(arg.name, one, signed=info.signed, bits=info.bits, unit=unit)
        return f"(!{arg.failed} && {inner})" if arg.can_fail else inner

    def write(self, arg: Arg, out: Lines) -> None:
        write_guarded(arg, f"write_u64(s, {arg.number}, {arg.position}, {arg.name});", out)


class ObjectNumberReader(NumberReader):
    """A number of a socket or packet, which a function of a header returns by the address."""

    def __init__(self, function: str, header: str) -> None:
        self.headers = ("record.h", header)
        self._function = function

    def cost(self, arg: Arg, filters: list[ValueFilter]) -> Cost:
        return Cost.OBJECT

    def fetch(self, arg: Arg, frame: Frame, out: Lines) -> None:
        fetch_address(arg, frame, out)
        out.add(f"{arg.name} = {self._function}({arg.name});")


class SyscallReader(NumberReader):
    """syscall64: the number, with bit 31 for the machine's 32-bit interface."""

    def fetch(self, arg: Arg, frame: Frame, out: Lines) -> None:
        fetch_address(arg, frame, out)
        out.add("if (is_compat_call())", f"\t{arg.name} |= 0x80000000;")


class CapabilitiesReader(NumberReader):
    """kernel_cap_t and the sets by use: pointers to 64 bits."""

    def cost(self, arg: Arg, filters: list[ValueFilter]) -> Cost:
        return Cost.OBJECT

    def fetch(self, arg: Arg, frame: Frame, out: Lines) -> None:
        fetch_address(arg, frame, out)
        name, resolved = arg.name, arg.planned.resolved
        out.add(f"u64 {name}_set = 0;")
        if resolved is not None and resolved.size:
            out.add(f"u32 {name}_ok = !{arg.failed};", f"{name}_set = {name};")
            return
        # kernel_cap_t was u32[2] until v6.3, u64 since: on little endian the same eight bytes.
        guard = f"!{arg.failed} && " if arg.can_fail else ""
        read = f"!bpf_probe_read_kernel(&{name}_set, 8, (void *){name})"
        out.add(f"u32 {name}_ok = any_number({guard}{read});")

    def condition(self, arg: Arg, one: ValueFilter, filters: list[ValueFilter], unit: Unit) -> str:
        if one.operator is Operator.CAPABILITIES_GAINED:
            return capabilities.gained(one, arg.section)
        inner = numbers.condition(f"{arg.name}_set", one, signed=False, bits=64, unit=unit)
        return f"({arg.name}_ok && {inner})"

    def write(self, arg: Arg, out: Lines) -> None:
        out.add(
            f"if ({arg.name}_ok)",
            f"\twrite_u64(s, {arg.number}, {arg.position}, {arg.name}_set);",
            "else",
            f"\twrite_error(s, {arg.number}, {arg.position}, ERROR_VALUE, 0);",
        )


def narrow(arg: Arg) -> str:
    """Return the cast that drops the upper bits of a register, "" where there are none."""
    info = TYPES[arg.type]
    if info.family is not Family.NUMBER or arg.type is ArgumentType.SYSCALL64:
        return ""
    source = arg.planned.source
    if (
        isinstance(source, RecordField)
        and source.size * 8 <= info.bits
        and source.signed == (info.signed)
    ):
        return ""
    if info.bits == 64:
        return ""
    return f"(u64)({'s' if info.signed else 'u'}{info.bits})"
