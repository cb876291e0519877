"""Memory with a length: char_buf, char_iovec, iov_iter, const_buf."""

from __future__ import annotations

from collector.policies import plan
from collector.policies.arguments.base import (
    Arg,
    Cost,
    Unit,
    fetch_address,
    field_of,
    write_guarded,
)
from collector.policies.ctext import Lines
from collector.policies.selectors import texts
from collector.policies.sources import Frame, expression, syscall_register
from tracingpolicy.selectors import ValueFilter
from tracingpolicy.types import ArgumentType

_SYSCALL_ARGUMENTS = 6


class BufferReader:
    """Bytes whose number another argument gives; compared like a text."""

    headers: tuple[str, ...] = ("buffers.h",)

    def cost(self, arg: Arg, filters: list[ValueFilter]) -> Cost:
        return Cost.TEXT

    def fetch(self, arg: Arg, frame: Frame, out: Lines) -> None:
        fetch_address(arg, frame, out)
        length = arg.planned.length
        size = "0" if length is None else expression(length, frame)
        out.add(
            f"u64 {arg.name}_size = {size};",
            f"s32 {arg.name}_len = -1;",
            f"char *{arg.name}_text = NULL;",
        )

    def read(self, arg: Arg, filters: list[ValueFilter], out: Lines) -> bool:
        self.write(arg, out)
        return True

    def condition(self, arg: Arg, one: ValueFilter, filters: list[ValueFilter], unit: Unit) -> str:
        inner = texts.condition(f"{arg.name}_text", f"{arg.name}_len", one, unit)
        return f"({arg.name}_len >= 0 && {inner})"

    def write(self, arg: Arg, out: Lines) -> None:
        name = arg.name
        call = f"write_buffer(s, {arg.number}, {arg.position}, {name}, {name}_size, {arg.user}"
        if arg.type is ArgumentType.CHAR_IOVEC:
            call = call.replace("write_buffer", "write_iovec") + ", NO_LIMIT"
        if arg.type is ArgumentType.IOV_ITER:
            call = f"write_iov_iter(s, {arg.position}, {name}"
        write_guarded(arg, f"{name}_len = {call}, &{name}_text);", out)


def keep_for_return(arg: Arg, out: Lines) -> None:
    """Keep what `copy_at_return` needs of a buffer that the call fills."""
    out.add(f"s->return_copy = {arg.name}; /* read at return */")
    if arg.type is ArgumentType.CHAR_IOVEC:
        out.add(f"s->return_copy_entries = {arg.name}_size;")


def copy_at_return(arg: Arg, returned: str, out: Lines) -> None:
    """Write the item of such a buffer: as many bytes as the call returned."""
    where, user = "s->return_copy", arg.user_at("s->return_copy")
    call = f"write_buffer(s, {arg.number}, {arg.position}, {where}, copied_size, {user}"
    if arg.type is ArgumentType.CHAR_IOVEC:
        call = (
            f"write_iovec(s, {arg.number}, {arg.position}, {where}, s->return_copy_entries, {user},"
            " copied_size < 0 ? 0 : copied_size"
        )
    out.comment(f"{arg.what}: returnCopy, as many bytes as the call returned")
    out.add("char *copied;", f"s64 copied_size = {returned};", f"{call}, &copied);")


class ArrayReader:
    """const_buf: an array in a tracepoint's record, or the six arguments of a system call."""

    headers: tuple[str, ...] = ("buffers.h",)

    def cost(self, arg: Arg, filters: list[ValueFilter]) -> Cost:
        return Cost.OBJECT

    def fetch(self, arg: Arg, frame: Frame, out: Lines) -> None:
        if not isinstance(arg.planned.source, plan.SyscallArguments):
            fetch_address(arg, frame, out)
            return
        registers = [syscall_register(n, frame) for n in range(_SYSCALL_ARGUMENTS)]
        values = [f"SAVED_REGISTER({frame.saved_registers()}, {one})" for one in registers]
        out.add(
            f"u64 {arg.name}_words[{_SYSCALL_ARGUMENTS}] = {{",
            *(f"\t{one}," for one in values),
            "};",
        )

    def read(self, arg: Arg, filters: list[ValueFilter], out: Lines) -> bool:
        return False

    def condition(self, arg: Arg, one: ValueFilter, filters: list[ValueFilter], unit: Unit) -> str:
        raise ValueError("const_buf: no filter compares this type")

    def write(self, arg: Arg, out: Lines) -> None:
        field = field_of(arg)
        if field is None:
            out.add(f"write_array(s, {arg.position}, {arg.name}_words, sizeof({arg.name}_words));")
            return
        size = field.size * max(1, field.elements)
        out.add(f"write_array(s, {arg.position}, {arg.name}, {min(size, 4096)});")
