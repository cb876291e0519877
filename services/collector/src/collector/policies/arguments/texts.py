"""Strings: string, filename, data_loc, net_device.

A short compare is done on the stack before anything else is taken; otherwise the string is read
into the record once and compared there.
"""

from __future__ import annotations

from collector.policies.arguments.base import Arg, Cost, Unit, fetch_address, write_guarded
from collector.policies.ctext import Lines
from collector.policies.selectors import texts
from collector.policies.sources import Frame
from tracingpolicy.operators import OPERATORS, Operator
from tracingpolicy.selectors import ValueFilter
from tracingpolicy.types import ArgumentType

SHORT_MAX = 63  # longest value that is compared on the stack
_ON_STACK = frozenset({Operator.EQUAL, Operator.PREFIX})


class TextReader:
    """NUL-terminated strings."""

    headers: tuple[str, ...] = ("text.h",)

    def cost(self, arg: Arg, filters: list[ValueFilter]) -> Cost:
        return Cost.SHORT_TEXT if _is_short(filters) else Cost.TEXT

    def fetch(self, arg: Arg, frame: Frame, out: Lines) -> None:
        fetch_address(arg, frame, out)
        _ADJUST.get(arg.type, _nothing)(arg, out)
        out.add(f"s32 {arg.name}_len = -1;", f"char *{arg.name}_text = NULL;")

    def read(self, arg: Arg, filters: list[ValueFilter], out: Lines) -> bool:
        if not _is_short(filters):
            self.write(arg, out)
            return True
        size = _short_size(filters)
        out.add(
            f"u64 {arg.name}_head[{size // 8}] = {{}};",
            f"{arg.name}_len = read_string({arg.name}_head, {size}, {arg.name}, {arg.user});",
            f"if ({arg.name}_len > 0) /* of an empty text 0 or 1, see text.h */",
            f"\t{arg.name}_len -= 1;",
        )
        return False

    def condition(self, arg: Arg, one: ValueFilter, filters: list[ValueFilter], unit: Unit) -> str:
        where = f"(const char *){arg.name}_head" if _is_short(filters) else f"{arg.name}_text"
        inner = texts.condition(where, f"{arg.name}_len", one, unit)
        return f"({arg.name}_len >= 0 && {inner})"

    def write(self, arg: Arg, out: Lines) -> None:
        call = (
            f"{arg.name}_len = write_string(s, {arg.number}, {arg.position}, {arg.name}, "
            f"{arg.user}, &{arg.name}_text);"
        )
        write_guarded(arg, call, out)


def _is_short(filters: list[ValueFilter]) -> bool:
    """Whether all compares fit on the stack: a few short values from the text's beginning."""
    values = [v for one in filters for v in one.values if isinstance(v, bytes)]
    return (
        bool(filters)
        and all((OPERATORS[one.operator].opposite or one.operator) in _ON_STACK for one in filters)
        and len(values) <= texts.UNROLLED_MAX
        and all(len(value) <= SHORT_MAX for value in values)
    )


def _short_size(filters: list[ValueFilter]) -> int:
    """Return the bytes to read: one more than any value, so that a longer text is seen as such."""
    longest = max(len(v) for one in filters for v in one.values if isinstance(v, bytes))
    return (longest + 2 + 7) // 8 * 8


def _nothing(arg: Arg, out: Lines) -> None:
    pass


def _filename(arg: Arg, out: Lines) -> None:
    out.add(f"{arg.name} = KERNEL(u64, {arg.name} + OFFSET_filename_name);")


def _net_device(arg: Arg, out: Lines) -> None:
    out.add(f"{arg.name} += OFFSET_net_device_name;")


def _data_loc(arg: Arg, out: Lines) -> None:
    out.comment("__data_loc: the offset of the text in the record, and in the upper half its size")
    out.add(f"{arg.name} = (u64)ctx + (KERNEL(u32, {arg.name}) & 0xffff);")


_ADJUST = {
    ArgumentType.FILENAME: _filename,
    ArgumentType.NET_DEVICE: _net_device,
    ArgumentType.DATA_LOC: _data_loc,
}
