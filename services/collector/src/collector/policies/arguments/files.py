"""Files and paths: file, fd, kiocb, linux_binprm, path, dentry."""

from __future__ import annotations

from collector.policies.arguments.base import Arg, Cost, Unit, fetch_address, write_guarded
from collector.policies.ctext import Lines, any_of, negated
from collector.policies.selectors import texts
from collector.policies.sources import Frame
from tracingpolicy.operators import OPERATORS, Operator
from tracingpolicy.selectors import ValueFilter
from tracingpolicy.types import ArgumentType

_S_IFMT = 0o170000


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
        positive = OPERATORS[one.operator].opposite or one.operator
        if positive is Operator.FILE_TYPE:
            mode = f"({arg.name}_mode & 0{_S_IFMT:o})"
            found = any_of(f"{mode} == 0{int(v):o}" for v in one.values if isinstance(v, int))
            if positive is not one.operator:
                found = negated(found)
            return f"({arg.name}_mode && {found})"
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
