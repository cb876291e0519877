"""Files and paths: file, fd, kiocb, linux_binprm, path, dentry."""

from __future__ import annotations

from collector.policies.arguments.base import Arg, Cost, Unit, fetch_address, write_guarded
from collector.policies.ctext import Lines, any_of, negated
from collector.policies.selectors import texts
from collector.policies.sources import Frame
from tracingpolicy.operators import Operator
from tracingpolicy.selectors import ValueFilter
from tracingpolicy.types import ArgumentType

_S_IFMT = 0o170000
_FILE_TYPES = (Operator.FILE_TYPE, Operator.NOT_FILE_TYPE)


def look(arg: Arg) -> tuple[str, ...]:
    """Return the lines that read what `sight` compares."""
    file = f"file_of_fd({arg.name})" if arg.type is ArgumentType.FD else arg.name
    call = "look_at_opened_file" if arg.planned.opened else "look_at_file"
    return (f"struct file_sight {arg.name}_sight = {{}};", f"{call}(&{arg.name}_sight, {file});")


def sight(arg: Arg, one: ValueFilter) -> str:
    """Return what a filter needs that is known before the path, as a C condition; "": nothing."""
    if arg.can_fail or arg.type not in (ArgumentType.FILE, ArgumentType.FD):
        return ""
    if one.operator in _FILE_TYPES:
        return _file_type(f"{arg.name}_sight.mode", one)
    values = [value for value in one.values if isinstance(value, bytes)]
    if one.operator is not Operator.EQUAL or any(map(_is_of_deleted, values)):
        return ""
    lengths = {0, *(len(value.rpartition(b"/")[2]) for value in values)}
    return any_of(f"{arg.name}_sight.name_len == {length}" for length in sorted(lengths))


def _is_of_deleted(path: bytes) -> bool:
    """Whether the path can be that of a deleted file, whose name is shorter."""
    return path.endswith(b" (deleted)")


def _file_type(mode: str, one: ValueFilter) -> str:
    kinds = (int(value) for value in one.values if isinstance(value, int))
    found = any_of(f"({mode} & 0{_S_IFMT:o}) == 0{kind:o}" for kind in kinds)
    if one.operator is not Operator.FILE_TYPE:
        found = negated(found)
    return f"({mode} && {found})"


class FileReader:
    """Everything that has a path."""

    headers: tuple[str, ...] = ("files.h",)

    def cost(self, arg: Arg, filters: list[ValueFilter]) -> Cost:
        return Cost.PATH

    def fetch(self, arg: Arg, frame: Frame, out: Lines) -> None:
        fetch_address(arg, frame, out)
        out.add(
            f"s32 {arg.name}_len = -1;",
            f"char *{arg.name}_text = NULL;",
            f"u16 {arg.name}_mode = 0;",
        )

    def read(self, arg: Arg, filters: list[ValueFilter], out: Lines) -> bool:
        self.write(arg, out)
        return True

    def condition(self, arg: Arg, one: ValueFilter, filters: list[ValueFilter], unit: Unit) -> str:
        if one.operator in _FILE_TYPES:
            return _file_type(f"{arg.name}_mode", one)
        # A file without a name, and the root itself, match no filter, Not included.
        inner = texts.condition(f"{arg.name}_text", f"{arg.name}_len", one, unit)
        return f"({arg.name}_len > 0 && {inner})"

    def write(self, arg: Arg, out: Lines) -> None:
        name = arg.name
        tail = f"&{name}_text, &{name}_mode"
        head = f"{name}_len = "
        where = f"s, {arg.number}, {arg.position}, "
        file = "write_opened_file" if arg.planned.opened else "write_file"
        call = {
            ArgumentType.FILE: f"{file}({where}{name}, {tail})",
            ArgumentType.FD: f"write_file({where}file_of_fd({name}), {tail})",
            ArgumentType.KIOCB: (
                f"write_file({where}KERNEL(u64, {name} + OFFSET_kiocb_file), {tail})"
            ),
            ArgumentType.LINUX_BINPRM: (
                f"write_file({where}KERNEL(u64, {name} + OFFSET_binprm_file), {tail})"
            ),
            ArgumentType.PATH: f"write_path({where}{name}, {tail})",
            ArgumentType.DENTRY: f"write_walk({where}0, {name}, {tail})",
        }[arg.type]
        write_guarded(arg, f"{head}{call};", out)
