"""Types by number and by name, read from the bytes of BTF.

Layout: Documentation/bpf/btf.rst. All of vmlinux (some 130,000 types) is indexed in about 0.04 s of
CPU: the place of each type's record, and the ids of names. The details of a type are read when they
are needed.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator

from collector.bpf.btf.kinds import COMPOSITE, ENUMS, TRANSPARENT, BtfKind, Field, Param, Type
from collector.errors import BtfError

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

# What follows a type's twelve bytes, by kind: once, and per member (vlen).
_FIXED = [0] * 32
_PER_MEMBER = [0] * 32
for _kind, _size in ((1, 4), (3, 12), (14, 4), (17, 4)):
    _FIXED[_kind] = _size
for _kind, _size in ((4, 12), (5, 12), (6, 8), (13, 8), (15, 12), (19, 12)):
    _PER_MEMBER[_kind] = _size


class TypeTable:
    """Types of the kernel, or of one module on top of the kernel's; never changes."""

    def __init__(self, data: bytes, base: TypeTable | None = None, source: str = "btf") -> None:
        """Index ``data``; raise `BtfError` if it is damaged. A module needs its kernel as base."""
        self.source = source
        self._base = base
        self._text = b""
        self._text_base: int = base._text_base + len(base._text) if base else 0
        self._first = base.count if base else 0  # the id of the first type that is ours
        self._by_name: dict[int, int] = {}  # name offset and kind in one number -> id
        self._places = array("I")
        self._offsets: dict[str, tuple[int, ...]] = {}  # of names that were asked for
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

    def names(self, *kinds: BtfKind) -> Iterator[str]:
        """Yield the names of all functions or types of these kinds, modules' base included."""
        for key in self._by_name:
            if key & 31 in kinds:
                yield self._name(key >> 5)
        if self._base:
            yield from self._base.names(*kinds)

    def has_name(self, name: str) -> bool:
        """Return whether anything has this name: a type, function, member or enumerator."""
        return bool(self._name_offsets(name))

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
            if found.kind not in TRANSPARENT:
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
        if found.kind in ENUMS:
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

    def prototype(self, number: int) -> tuple[tuple[Param, ...], int]:
        """Return the parameters and the result type of a FUNC_PROTO."""
        found = self.type(number)
        data, at = self._extra(number)
        rows = (_PAIR.unpack_from(data, at + 8 * index) for index in range(found.members))
        return tuple(Param(self._name(name), type_) for name, type_ in rows), found.value

    def fields(self, number: int) -> Iterator[Field]:
        """Yield the direct members of a struct or union, in order."""
        found = self.type(self.strip(number))
        if found.kind not in COMPOSITE:
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
        number = self.find(enum, *ENUMS) if isinstance(enum, str) else self.strip(enum)
        if number is None or self.type(number).kind not in ENUMS:
            raise BtfError(f"no enum {enum} in this kernel")
        found = self.type(number)
        data, at = self._extra(number)
        layout = _enumerators(found.kind, signed=found.flag)
        rows = layout.iter_unpack(data[at : at + layout.size * found.members])
        return {self._name(name): value for name, value in rows}

    def constants(self, wanted: Iterable[str]) -> dict[str, int]:
        """Return the values of enumerators by name, from whichever enums they are in."""
        names = {name.encode() for name in wanted}
        found = self._base.constants(wanted) if self._base else {}
        data, text, text_base = self._data, self._text, self._text_base
        for place in self._places:
            # Without a `Type` for each: that would take ten times as long.
            kind = data[place + 7] & 31
            if kind not in ENUMS or not place:
                continue
            layout = _enumerators(kind, signed=bool(data[place + 7] >> 7))
            end = place + 12 + layout.size * (data[place + 4] | data[place + 5] << 8)
            for offset, value in layout.iter_unpack(data[place + 12 : end]):
                start = offset - text_base
                if start >= 0 and (name := text[start : text.index(b"\0", start)]) in names:
                    found[name.decode()] = value
        return found

    # Below: bytes.

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

    def _name_offsets(self, name: str) -> tuple[int, ...]:
        """Return where a name is among the strings; a search costs 1 ms, so it is remembered."""
        found = self._offsets.get(name)
        if found is None:
            found = self._offsets[name] = tuple(self._search(name))
        return found

    def _search(self, name: str) -> Iterator[int]:
        # pahole writes each string once; other writers may share the tails of longer ones.
        needle, at = b"\0" + name.encode() + b"\0", -1
        while (at := self._text.find(needle, at + 1)) >= 0:
            yield at + 1 + self._text_base
        if self._base:  # a module's types may be named by the kernel's strings
            yield from self._base._name_offsets(name)


def _enumerators(kind: int, *, signed: bool) -> struct.Struct:
    """Return the layout of an enum's members: name and value."""
    if kind == BtfKind.ENUM:
        return _ENUM if signed else _ENUM_UNSIGNED
    return _ENUM64_SIGNED if signed else _ENUM64
