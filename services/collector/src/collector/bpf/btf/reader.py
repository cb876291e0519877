"""`Btf`: questions by name about one kernel, or one module on top of it."""

from __future__ import annotations

import difflib
from pathlib import Path

from collector.bpf.btf.declare import declaration
from collector.bpf.btf.kinds import ENUMS, BtfKind, FuncProto, Member
from collector.bpf.btf.members import struct_member, suggest
from collector.bpf.btf.table import TypeTable
from collector.errors import BtfError

VMLINUX = Path("/sys/kernel/btf/vmlinux")


class Btf(TypeTable):
    """The types of the kernel, or of one module on top of the kernel's; it never changes."""

    @classmethod
    def vmlinux(cls, path: Path = VMLINUX) -> Btf:
        """Read the kernel's own types; raise `BtfError`."""
        return cls._of_file(path, None)

    @classmethod
    def module(cls, name: str, base: Btf, folder: Path = VMLINUX.parent) -> Btf:
        """Read the types of a loaded kernel module, on top of the kernel's; raise `BtfError`."""
        return cls._of_file(folder / name, base)

    @classmethod
    def _of_file(cls, path: Path, base: Btf | None) -> Btf:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BtfError(f"btf: {path}: {error.strerror}") from None
        return cls(data, base, f"btf: {path}")

    def find_type(self, text: str) -> int:
        """Return the id of a type written as in C: ``struct file``, ``union x``, ``enum x``, or a
        typedef's, integer's or (last) struct's bare name. Raises `BtfError`.
        """
        word, _, name = text.strip().rpartition(" ")
        kinds = {
            "struct": (BtfKind.STRUCT,),
            "union": (BtfKind.UNION,),
            "enum": (BtfKind.ENUM, BtfKind.ENUM64),
        }.get(word.strip())
        if kinds is None:
            name = text.strip()
            kinds = (BtfKind.TYPEDEF, BtfKind.INT, BtfKind.STRUCT, BtfKind.UNION, *ENUMS)
        found = self.find(name, *kinds)
        if found is None:
            near = self.nearest_names(name, *kinds)
            raise BtfError(f"no type {text} in this kernel{suggest(near)}", near)
        return found

    def func_proto(self, function: str | int) -> FuncProto:
        """Return a function's prototype; raise `BtfError`."""
        number = self.find_func(function) if isinstance(function, str) else function
        if number is None:
            near = self.nearest_names(str(function), BtfKind.FUNC)
            raise BtfError(f"no function {function} in this kernel's BTF{suggest(near)}", near)
        found = self.type(number)
        params, result = self.prototype(found.value)
        return FuncProto(number, found.name, params, result)

    def tracepoint_proto(self, tracepoint: str) -> FuncProto:
        """Return the arguments of a raw tracepoint; its id is what a tp_btf program binds to.

        The typedef ``btf_trace_<name>`` is a pointer to a function whose first parameter is not
        passed on to programs (include/trace/bpf_probe.h). Raises `BtfError`.
        """
        number = self.find(f"btf_trace_{tracepoint}", BtfKind.TYPEDEF)
        if number is None:
            near = self.nearest_names(f"btf_trace_{tracepoint}", BtfKind.TYPEDEF)
            near = tuple(name.removeprefix("btf_trace_") for name in near)
            raise BtfError(f"no tracepoint {tracepoint} in this kernel{suggest(near)}", near)
        pointer = self.type(self.strip(number))
        params, result = self.prototype(pointer.value)
        return FuncProto(number, tracepoint, params[1:], result)

    def nearest_names(self, name: str, *kinds: BtfKind, limit: int = 3) -> tuple[str, ...]:
        """Return existing names (of functions, unless ``kinds`` says otherwise) most like one."""
        kinds = kinds or (BtfKind.FUNC,)
        pieces = {name[at : at + 4] for at in range(max(1, len(name) - 3))}
        enough = max(1, len(pieces) // 3)
        candidates = [
            other
            for other in self.names(*kinds)
            if abs(len(other) - len(name)) <= 8 and sum(p in other for p in pieces) >= enough
        ]
        return tuple(difflib.get_close_matches(name, candidates, limit, 0.6))

    def struct_member(self, type_: str | int, path: str) -> Member:
        """Return where ``path`` lies in a struct: ``mm.owner.comm``, ``a.b[2].c``.

        Anonymous structs and unions are looked through, pointers followed. Raises `BtfError` that
        says which part is missing and what is there instead.
        """
        return struct_member(self, self.find_type(type_) if isinstance(type_, str) else type_, path)

    def type_name(self, number: int, name: str = "") -> str:
        """Return the C declaration of ``name`` with this type; without a name, the type alone."""
        return declaration(self, number, name)
