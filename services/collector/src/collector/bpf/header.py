"""A C header of only the types that some sources name, with this kernel's own offsets.

It replaces vmlinux.h, of whose 2.7 MB the sources need some thirty structs. Every named struct is
written with the members that the sources mention, each at its offset, with padding between. The
sources see no difference, except that bit fields are left out.

The types are every ``struct x`` in the sources, and the types that the named members contain or
point to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from collector.bpf.btf import Btf, BtfKind, Type

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_]\w*")
_TAGGED = re.compile(r"\b(struct|union)\s+([A-Za-z_]\w*)")
_COMPOSITE = {BtfKind.STRUCT: "struct", BtfKind.UNION: "union"}
_OWN = {"false", "true", "NULL"}  # the shim's
_INTEGERS = {1: "char", 2: "short", 4: "int", 8: "long long", 16: "__int128"}


def kernel_header(btf: Btf, sources: str) -> str:
    """Return the header for ``sources``; types that this kernel lacks are left out."""
    return _Header(btf, _COMMENT.sub(" ", sources)).text()


class _Header:
    def __init__(self, btf: Btf, sources: str) -> None:
        self._btf = btf
        self._words = frozenset(_WORD.findall(sources))
        self._written: set[int] = set()
        self._forward: set[str] = set()
        self._bodies: list[str] = []
        self._todo: list[int] = []
        for word, name in _TAGGED.findall(sources):
            kind = BtfKind.STRUCT if word == "struct" else BtfKind.UNION
            number = btf.find(name, kind)
            if number is not None:
                self._todo.append(number)

    def text(self) -> str:
        while self._todo:
            self._write(self._todo.pop())
        constants = self._btf.constants(self._words - _OWN)
        enums = [f"enum {{ {name} = {value}LL }};" for name, value in sorted(constants.items())]
        return "\n".join([*sorted(self._forward), *enums, *self._bodies]) + "\n"

    def _write(self, number: int) -> None:
        """Write a named struct or union, behind those that it contains."""
        if number in self._written:
            return
        self._written.add(number)
        found = self._btf.type(number)
        # A struct that is read from kernel memory at once is then accessed in parts: the alignment
        # lets the compiler load each part with one instruction.
        align = next(size for size in (8, 4, 2, 1) if found.value % size == 0)
        body = self._body(found, f"{_COMPOSITE[found.kind]} {found.name}")
        self._bodies.append(f"{body} __attribute__((aligned({align})));")

    def _body(self, found: Type, head: str) -> str:
        rows = [f"char __size[{found.value}];"] if found.value else []
        for name, type_, offset in self._members(found.id, 0):
            declared = self._declare(type_, name)
            rows.append(
                f"struct {{ char __before_{name}[{offset}]; {declared}; }} __attribute__((packed));"
                if offset
                else f"{declared};"
            )
        inside = "\n\t".join(rows)
        return f"{head} {{ union {{\n\t{inside}\n}};\n}}"

    def _members(self, number: int, base: int) -> Iterator[tuple[str, int, int]]:
        """Yield the members that the sources mention, those of anonymous parts too."""
        for field in self._btf.fields(number):
            if field.bits or field.bit_offset % 8:
                continue
            offset = base + field.bit_offset // 8
            if not field.name:
                yield from self._members(self._btf.strip(field.type), offset)
            elif field.name in self._words:
                yield field.name, field.type, offset

    def _declare(self, type_: int, name: str) -> str:
        """Return the declaration of ``name`` with this type, and remember what it needs."""
        found = self._btf.type(self._btf.strip(type_))
        if found.kind is BtfKind.INT:
            return f"{self._integer(found)} {name}"
        if found.kind in (BtfKind.ENUM, BtfKind.ENUM64):
            return f"{'' if found.flag else 'unsigned '}{_INTEGERS[found.value]} {name}"
        if found.kind is BtfKind.PTR:
            return self._pointer(found.value, name)
        if found.kind is BtfKind.ARRAY:
            element, length = self._btf.array(found.id)
            return self._declare(element, f"{name}[{length}]")
        if found.kind in _COMPOSITE and found.name:
            self._write(found.id)
            return f"{_COMPOSITE[found.kind]} {found.name} {name}"
        if found.kind in _COMPOSITE:
            return f"{self._body(found, _COMPOSITE[found.kind])} {name}"
        return f"char {name}[{self._btf.size(found.id)}]"

    def _pointer(self, to: int, name: str) -> str:
        found = self._btf.type(self._btf.strip(to))
        if found.kind in (*_COMPOSITE, BtfKind.FWD) and found.name:
            union = found.kind is BtfKind.UNION or (found.kind is BtfKind.FWD and found.flag)
            tag = f"{'union' if union else 'struct'} {found.name}"
            self._forward.add(f"{tag};")
            if found.kind in _COMPOSITE and found.name in self._words:
                self._todo.append(found.id)
            return f"{tag} *{name}"
        if found.kind is BtfKind.INT:
            return f"{self._integer(found)} *{name}"
        return f"void *{name}"

    def _integer(self, found: Type) -> str:
        if self._btf.is_bool(found.id):
            return "_Bool"
        # BTF describes the kernel's strings, which are plain char, as this.
        if found.name == "char":
            return "char"
        return f"{'' if self._btf.is_signed(found.id) else 'unsigned '}{_INTEGERS[found.value]}"
