"""The kernel's types and functions, read from BTF: offsets, prototypes, enums, sizes.

Layout: Documentation/bpf/btf.rst. All of vmlinux (some 130,000 types) is indexed in about 0.1 s;
what a type looks like is read when it is asked for. A `Btf` never changes after it was read.
"""

from __future__ import annotations

import difflib
import re
import struct
from array import array
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from collector.errors import BtfError

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_MAGIC_AND_VERSION = b"\x9f\xeb\x01"
_HEADER = struct.Struct("<BIIIII")  # flags; size of the header; places and sizes
_TYPE = struct.Struct("<III")  # name, info, size or type
_MEMBER = struct.Struct("<III")  # name, type, offset in bits
_PAIR = struct.Struct("<II")  # a parameter: name, type
_ARRAY = struct.Struct("<III")  # element type, index type, number of elements
_ENUM = struct.Struct("<Ii")
_ENUM_UNSIGNED = struct.Struct("<II")
_ENUM64 = struct.Struct("<IQ")
_ENUM64_SIGNED = struct.Struct("<Iq")
_POINTER_SIZE = 8


class BtfKind(IntEnum):
    """``BTF_KIND_...`` of include/uapi/linux/btf.h."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_TRANSPARENT = frozenset(
    {BtfKind.TYPEDEF, BtfKind.VOLATILE, BtfKind.CONST, BtfKind.RESTRICT, BtfKind.TYPE_TAG}
)
_COMPOSITE = frozenset({BtfKind.STRUCT, BtfKind.UNION})
_ENUMS = frozenset({BtfKind.ENUM, BtfKind.ENUM64})
# What follows a type's twelve bytes, by kind: once, and per member (vlen).
_FIXED = [0] * 32
_PER_MEMBER = [0] * 32
for _kind, _size in ((1, 4), (3, 12), (14, 4), (17, 4)):
    _FIXED[_kind] = _size
for _kind, _size in ((4, 12), (5, 12), (6, 8), (13, 8), (15, 12), (19, 12)):
    _PER_MEMBER[_kind] = _size


class Type(NamedTuple):
    """One type as BTF has it."""

    id: int
    kind: BtfKind
    name: str  # empty: anonymous
    members: int  # or enumerators, or parameters: how many
    flag: bool  # kind_flag: of a struct, offsets carry bit field sizes; of an enum, signed
    value: int  # size in bytes, or the id of the type that this one refers to


class Field(NamedTuple):
    """A direct member of a struct or union."""

    name: str  # empty: an anonymous struct or union
    type: int
    bit_offset: int
    bits: int  # width of a bit field; 0: none


class Member(NamedTuple):
    """Where a member lies that a path names: how to reach it, and what it is.

    ``offsets``: add the first to the struct's address; for each further one read the pointer
    there and add the offset to its value. One element: no pointer on the way.
    """

    offsets: tuple[int, ...]
    type: int
    size: int
    bits: int = 0  # width of a bit field; 0: none
    bit_offset: int = 0  # of the bit field, from the least significant bit of ``size`` bytes

    @property
    def offset(self) -> int:
        """The only offset; raise ValueError if there are pointers on the way."""
        (offset,) = self.offsets
        return offset


class Param(NamedTuple):
    """One parameter of a function."""

    name: str
    type: int


class FuncProto(NamedTuple):
    """A function or tracepoint: its id (what programs bind to), parameters and result type."""

    id: int
    name: str
    params: tuple[Param, ...]
    result: int  # 0: void


class Btf:
    """The types of the kernel, or of one module on top of the kernel's."""

    def __init__(self, data: bytes, base: Btf | None = None, source: str = "btf") -> None:
        """Index ``data``; raise `BtfError` if it is damaged. A module needs its kernel as base."""
        self.source = source
        self._base = base
        self._text = b""
        self._text_base: int = base._text_base + len(base._text) if base else 0
        self._first = base.count if base else 0  # the id of the first type that is ours
        self._by_name: dict[int, int] = {}  # name offset and kind in one number -> id
        self._places = array("I")
        try:
            self._data = data
            self._read()
        except (struct.error, IndexError) as error:
            raise BtfError(f"{source}: damaged type information: {error}") from None

    def _read(self) -> None:
        if self._data[:3] != _MAGIC_AND_VERSION:
            raise BtfError(f"{self.source}: not type information (BTF version 1, little endian)")
        _, header, type_at, type_size, text_at, text_size = _HEADER.unpack_from(self._data, 3)
        self._text = self._data[header + text_at : header + text_at + text_size]
        at, end = header + type_at, header + type_at + type_size
        if end > len(self._data) or len(self._text) != text_size or not self._text.endswith(b"\0"):
            raise BtfError(f"{self.source}: damaged type information: it ends early")
        places = [] if self._base else [0]  # id 0 is void and has no record
        append, unpack, by_name = places.append, _TYPE.unpack_from, self._by_name
        data, fixed, per_member, number = self._data, _FIXED, _PER_MEMBER, self._first + len(places)
        while at < end:
            name, info, _ = unpack(data, at)
            kind = info >> 24 & 31
            append(at)
            if name:
                by_name[name << 5 | kind] = number
            at += 12 + fixed[kind] + per_member[kind] * (info & 0xFFFF)
            number += 1
        if at != end:
            raise BtfError(f"{self.source}: damaged type information: a type ends late")
        self._places = array("I", places)

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

    @property
    def count(self) -> int:
        """Ids are below this."""
        return self._first + len(self._places)

    # Finding.

    def find(self, name: str, *kinds: BtfKind) -> int | None:
        """Return the id of the type or function of one of these kinds, in this or the base."""
        for offset in self._name_offsets(name):
            for kind in kinds:
                found = self._by_name.get(offset << 5 | kind)
                if found is not None:
                    return found
        return self._base.find(name, *kinds) if self._base else None

    def find_func(self, name: str) -> int | None:
        """Return the id of a function."""
        return self.find(name, BtfKind.FUNC)

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
            kinds = (BtfKind.TYPEDEF, BtfKind.INT, BtfKind.STRUCT, BtfKind.UNION, *_ENUMS)
        found = self.find(name, *kinds)
        if found is None:
            near = self.nearest_names(name, *kinds)
            raise BtfError(f"no type {text} in this kernel{_suggest(near)}", near)
        return found

    def func_proto(self, function: str | int) -> FuncProto:
        """Return a function's prototype; raise `BtfError`."""
        number = self.find_func(function) if isinstance(function, str) else function
        if number is None:
            near = self.nearest_names(str(function), BtfKind.FUNC)
            raise BtfError(f"no function {function} in this kernel's BTF{_suggest(near)}", near)
        found = self.type(number)
        params, result = self._prototype(found.value)
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
            raise BtfError(f"no tracepoint {tracepoint} in this kernel{_suggest(near)}", near)
        pointer = self.type(self.strip(number))
        params, result = self._prototype(pointer.value)
        return FuncProto(number, tracepoint, params[1:], result)

    def names(self, *kinds: BtfKind) -> Iterator[str]:
        """Yield the names of all functions or types of these kinds, modules' base included."""
        for key in self._by_name:
            if key & 31 in kinds:
                yield self._name(key >> 5)
        if self._base:
            yield from self._base.names(*kinds)

    def has_name(self, name: str) -> bool:
        """Return whether anything has this name: a type, function, member or enumerator."""
        return any(True for _ in self._name_offsets(name)) or (
            self._base is not None and self._base.has_name(name)
        )

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

    # Looking at one type.

    def type(self, number: int) -> Type:
        """Return the type with this id; raise `BtfError` for an id that does not exist."""
        if number == 0:
            return Type(0, BtfKind.VOID, "void", 0, False, 0)
        if number < self._first:
            assert self._base
            return self._base.type(number)
        if number >= self.count:
            raise BtfError(f"{self.source}: no type {number}")
        name, info, value = _TYPE.unpack_from(self._data, self._places[number - self._first])
        return Type(
            number,
            BtfKind(info >> 24 & 31),
            self._name(name),
            info & 0xFFFF,
            bool(info >> 31),
            value,
        )

    def strip(self, number: int) -> int:
        """Return the id behind typedefs, const, volatile, restrict and tags."""
        while True:
            found = self.type(number)
            if found.kind not in _TRANSPARENT:
                return number
            number = found.value

    def size(self, number: int) -> int:
        """Return a type's size in bytes; 0 for void, functions and forward declarations."""
        found = self.type(self.strip(number))
        if found.kind is BtfKind.PTR:
            return _POINTER_SIZE
        if found.kind is BtfKind.ARRAY:
            element, length = self.array(found.id)
            return self.size(element) * length
        if found.kind in (BtfKind.VOID, BtfKind.FUNC, BtfKind.FUNC_PROTO, BtfKind.FWD):
            return 0
        return found.value

    def is_signed(self, number: int) -> bool:
        """Return whether an integer or enum is signed."""
        found = self.type(self.strip(number))
        if found.kind in _ENUMS:
            return found.flag
        return found.kind is BtfKind.INT and bool(self._integer(found.id) >> 24 & 1)

    def is_bool(self, number: int) -> bool:
        """Return whether this is the kernel's bool."""
        found = self.type(self.strip(number))
        return found.kind is BtfKind.INT and bool(self._integer(found.id) >> 24 & 4)

    def pointee(self, number: int) -> int | None:
        """Return the id of the type pointed to, modifiers included; None if it is no pointer."""
        found = self.type(self.strip(number))
        return found.value if found.kind is BtfKind.PTR else None

    def array(self, number: int) -> tuple[int, int]:
        """Return the element type and length of an array."""
        element, _, length = _ARRAY.unpack_from(*self._extra(self.strip(number)))
        return element, length

    def fields(self, number: int) -> Iterator[Field]:
        """Yield the direct members of a struct or union, in order."""
        found = self.type(self.strip(number))
        if found.kind not in _COMPOSITE:
            return
        data, at = self._extra(found.id)
        for index in range(found.members):
            name, type_, offset = _MEMBER.unpack_from(data, at + 12 * index)
            bits = 0
            if found.flag:
                bits, offset = offset >> 24, offset & 0xFFFFFF
            yield Field(self._name(name), type_, offset, bits)

    def enum_values(self, enum: str | int) -> dict[str, int]:
        """Return the enumerators of an enum; raise `BtfError` if there is no such enum."""
        number = self.find_type(f"enum {enum}") if isinstance(enum, str) else self.strip(enum)
        found = self.type(number)
        data, at = self._extra(number)
        if found.kind is BtfKind.ENUM:
            layout, step = _ENUM if found.flag else _ENUM_UNSIGNED, 8
        else:
            layout, step = _ENUM64_SIGNED if found.flag else _ENUM64, 12
        rows = (layout.unpack_from(data, at + step * index) for index in range(found.members))
        values = {}
        for row in rows:
            value = row[1]
            values[self._name(row[0])] = value
        return values

    def constants(self, wanted: frozenset[str] | set[str]) -> dict[str, int]:
        """Return the values of enumerators by name, from whichever enums they are in."""
        found: dict[str, int] = {}
        for index, place in enumerate(self._places):
            # The kind alone: a `Type` for each of 130,000 would take ten times as long.
            if self._data[place + 7] & 31 in _ENUMS and place:
                values = self.enum_values(self._first + index)
                found |= {name: values[name] for name in wanted & values.keys()}
        return (self._base.constants(wanted) if self._base else {}) | found

    # Members by a path.

    def struct_member(self, type_: str | int, path: str) -> Member:
        """Return where ``path`` lies in a struct: ``mm.owner.comm``, ``a.b[2].c``.

        Anonymous structs and unions are looked through, pointers followed. Raises `BtfError` that
        says which part is missing and what is there instead.
        """
        number = self.find_type(type_) if isinstance(type_, str) else type_
        steps = _steps(path)
        at = _Walk([0], number)
        for done, step in enumerate(steps):
            before = path if done == len(steps) else ".".join(map(str, steps[:done]))
            if isinstance(step, int):
                self._index(at, step, before or self.type_name(number))
            else:
                self._enter(at, step)
        size = self.size(at.type)
        if at.bits:
            # The storage unit that a compiler reads: as large as the declared type.
            unit = (at.bit_offset // (8 * size)) * size
            at.offsets[-1] += unit
            return Member(tuple(at.offsets), at.type, size, at.bits, at.bit_offset - 8 * unit)
        return Member(tuple(at.offsets), at.type, size)

    def _index(self, at: _Walk, index: int, before: str) -> None:
        found = self.type(self.strip(at.type))
        if found.kind is BtfKind.ARRAY:
            element, length = self.array(found.id)
            # Flexible arrays have length 0, old ones 1.
            if length > 1 and index >= length:
                raise BtfError(f"{before}[{index}]: the array has {length} elements")
            at.offsets[-1] += index * self.size(element)
            at.type = element
        elif found.kind is BtfKind.PTR:
            at.offsets.append(index * self.size(found.value))
            at.type = found.value
        else:
            raise BtfError(f"{before}[{index}]: {self.type_name(at.type)} is no array or pointer")

    def _enter(self, at: _Walk, name: str) -> None:
        found = self.type(self.strip(at.type))
        if at.bits:
            raise BtfError(f"{name}: a bit field has no members")
        if found.kind is BtfKind.PTR:
            at.offsets.append(0)
            at.type = found.value
            found = self.type(self.strip(found.value))
        if found.kind is BtfKind.FWD:  # declared here, defined elsewhere
            whole = self.find(found.name, BtfKind.UNION if found.flag else BtfKind.STRUCT)
            found = self.type(whole) if whole else found
        if found.kind not in _COMPOSITE:
            raise BtfError(f"{name}: {self.type_name(at.type)} has no members")
        field = self._field(found.id, name)
        if field is None:
            names = list(self._field_names(found.id))
            near = tuple(difflib.get_close_matches(name, names, 3, 0.6))
            raise BtfError(f"{self.type_name(found.id)} has no member {name}{_suggest(near)}", near)
        at.type = field.type
        if field.bits:
            at.bits, at.bit_offset = field.bits, field.bit_offset
        else:
            at.offsets[-1] += field.bit_offset // 8

    def _field(self, number: int, name: str) -> Field | None:
        for field in self.fields(number):
            if field.name == name:
                return field
            if not field.name:
                inner = self._field(self.strip(field.type), name)
                if inner:
                    return inner._replace(bit_offset=inner.bit_offset + field.bit_offset)
        return None

    def _field_names(self, number: int) -> Iterator[str]:
        for field in self.fields(number):
            if field.name:
                yield field.name
            else:
                yield from self._field_names(self.strip(field.type))

    # As C.

    def type_name(self, number: int, name: str = "") -> str:
        """Return the C declaration of ``name`` with this type; without a name, the type alone."""
        found = self.type(number)
        kind = found.kind
        if kind is BtfKind.PTR:
            inner = self.type(found.value)
            while inner.kind is BtfKind.TYPE_TAG:
                inner = self.type(inner.value)
            star = f"(*{name})" if inner.kind in (BtfKind.ARRAY, BtfKind.FUNC_PROTO) else f"*{name}"
            return self.type_name(inner.id, star)
        if kind is BtfKind.ARRAY:
            element, length = self.array(number)
            return self.type_name(element, f"{name}[{length}]")
        if kind in (BtfKind.CONST, BtfKind.VOLATILE, BtfKind.RESTRICT):
            word = kind.name.lower()
            if self.type(found.value).kind is BtfKind.PTR:
                return self.type_name(found.value, f"{word} {name}".strip())
            return f"{word} {self.type_name(found.value, name)}"
        if kind is BtfKind.TYPE_TAG:
            return self.type_name(found.value, name)
        if kind is BtfKind.FUNC_PROTO:
            params, result = self._prototype(number)
            inside = ", ".join(self.type_name(param.type, param.name) for param in params)
            return self.type_name(result, f"{name}({inside or 'void'})")
        word = {BtfKind.STRUCT: "struct ", BtfKind.UNION: "union "}.get(kind, "")
        if kind is BtfKind.FWD:
            word = "union " if found.flag else "struct "
        if kind in _ENUMS:
            word = "enum "
        base = f"{word}{found.name or '{...}'}"
        return f"{base} {name}" if name and not name.startswith("[") else base + name

    # Below: bytes.

    def _prototype(self, number: int) -> tuple[tuple[Param, ...], int]:
        found = self.type(number)
        data, at = self._extra(number)
        rows = (_PAIR.unpack_from(data, at + 8 * index) for index in range(found.members))
        return tuple(Param(self._name(name), type_) for name, type_ in rows), found.value

    def _integer(self, number: int) -> int:
        (encoding,) = struct.unpack_from("<I", *self._extra(number))
        return int(encoding)

    def _extra(self, number: int) -> tuple[bytes, int]:
        """Return the bytes and the place in them of what follows a type's record."""
        if number < self._first:
            assert self._base
            return self._base._extra(number)
        return self._data, self._places[number - self._first] + 12

    def _name(self, offset: int) -> str:
        if offset < self._text_base:
            assert self._base
            return self._base._name(offset)
        start = offset - self._text_base
        return self._text[start : self._text.index(b"\0", start)].decode(errors="replace")

    def _name_offsets(self, name: str) -> Iterator[int]:
        # pahole writes each string once; other writers may share the tails of longer ones.
        needle, at = b"\0" + name.encode() + b"\0", -1
        while (at := self._text.find(needle, at + 1)) >= 0:
            yield at + 1 + self._text_base
        if self._base:  # a module's types may be named by the kernel's strings
            yield from self._base._name_offsets(name)


class _Walk:
    """Where a path has led so far."""

    __slots__ = ("bit_offset", "bits", "offsets", "type")

    def __init__(self, offsets: list[int], type_: int) -> None:
        self.offsets = offsets
        self.type = type_
        self.bits = 0
        self.bit_offset = 0


def _steps(path: str) -> list[str | int]:
    """Return ``a.b[2].c`` as ["a", "b", 2, "c"]; raise `BtfError`."""
    if not re.fullmatch(r"\w+(\[\d+\])*(\.\w+(\[\d+\])*)*", path):
        raise BtfError(f"{path}: not a path of members: a.b[2].c is one")
    return [int(index) if index else name for name, index in re.findall(r"(\w+)|\[(\d+)\]", path)]


def _suggest(near: tuple[str, ...]) -> str:
    return f" (nearest: {', '.join(near)})" if near else ""
