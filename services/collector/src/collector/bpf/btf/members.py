"""Where a member lies that a path names: ``mm.owner.comm``, ``a.b[2].c``.

Anonymous structs and unions are looked through, pointers followed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from collector.bpf.btf.declare import declaration
from collector.bpf.btf.kinds import COMPOSITE, BtfKind, Field, Member
from collector.bpf.btf.table import TypeTable
from collector.errors import BtfError


class _Walk:
    """Where a path has led so far."""

    __slots__ = ("bit_offset", "bits", "offsets", "type")

    def __init__(self, offsets: list[int], type_: int) -> None:
        self.offsets = offsets
        self.type = type_
        self.bits = 0
        self.bit_offset = 0


def struct_member(types: TypeTable, number: int, path: str) -> Member:
    """Return where ``path`` lies in a struct: ``mm.owner.comm``, ``a.b[2].c``.

    Anonymous structs and unions are looked through, pointers followed. Raises `BtfError` that
    says which part is missing and what is there instead.
    """
    steps = _steps(path)
    at = _Walk([0], number)
    for done, step in enumerate(steps):
        if isinstance(step, int):
            _index(types, at, step, _text(steps[:done]))
        else:
            _enter(types, at, step)
    size = types.size(at.type)
    if at.bits:
        # The storage unit that a compiler reads: as large as the declared type.
        unit = (at.bit_offset // (8 * size)) * size
        at.offsets[-1] += unit
        return Member(tuple(at.offsets), at.type, size, at.bits, at.bit_offset - 8 * unit)
    return Member(tuple(at.offsets), at.type, size)


def _index(types: TypeTable, at: _Walk, index: int, before: str) -> None:
    found = types.type(types.strip(at.type))
    if found.kind is BtfKind.ARRAY:
        element, length = types.array(found.id)
        # Flexible arrays have length 0, old ones 1.
        if length > 1 and index >= length:
            raise BtfError(f"{before}[{index}]: the array has {length} elements")
        at.offsets[-1] += index * types.size(element)
        at.type = element
    elif found.kind is BtfKind.PTR:
        at.offsets.append(index * types.size(found.value))
        at.type = found.value
    else:
        raise BtfError(f"{before}[{index}]: {declaration(types, at.type)} is no array or pointer")


def _enter(types: TypeTable, at: _Walk, name: str) -> None:
    found = types.type(types.strip(at.type))
    if at.bits:
        raise BtfError(f"{name}: a bit field has no members")
    if found.kind is BtfKind.PTR:
        at.offsets.append(0)
        at.type = found.value
        found = types.type(types.strip(found.value))
    if found.kind is BtfKind.FWD:  # declared here, defined elsewhere
        whole = types.find(found.name, BtfKind.UNION if found.flag else BtfKind.STRUCT)
        found = types.type(whole) if whole else found
    if found.kind not in COMPOSITE:
        raise BtfError(f"{name}: {declaration(types, at.type)} has no members")
    field = _field(types, found.id, name)
    if field is None:
        names = list(field_names(types, found.id))
        near = tuple(difflib.get_close_matches(name, names, 3, 0.6))
        raise BtfError(f"{declaration(types, found.id)} has no member {name}{suggest(near)}", near)
    at.type = field.type
    if field.bits:
        at.bits, at.bit_offset = field.bits, field.bit_offset
    else:
        at.offsets[-1] += field.bit_offset // 8


def _field(types: TypeTable, number: int, name: str) -> Field | None:
    for field in types.fields(number):
        if field.name == name:
            return field
        if not field.name:
            inner = _field(types, types.strip(field.type), name)
            if inner:
                return inner._replace(bit_offset=inner.bit_offset + field.bit_offset)
    return None


def field_names(types: TypeTable, number: int) -> Iterator[str]:
    """Yield the names of all members, those of anonymous structs and unions too."""
    for field in types.fields(number):
        if field.name:
            yield field.name
        else:
            yield from field_names(types, types.strip(field.type))


def _steps(path: str) -> list[str | int]:
    """Return ``a.b[2].c`` as ["a", "b", 2, "c"]; raise `BtfError`."""
    if not re.fullmatch(r"\w+(\[\d+\])*(\.\w+(\[\d+\])*)*", path):
        raise BtfError(f"{path}: not a path of members: a.b[2].c is one")
    return [int(index) if index else name for name, index in re.findall(r"(\w+)|\[(\d+)\]", path)]


def _text(steps: list[str | int]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".")


def suggest(near: tuple[str, ...]) -> str:
    """Return the end of a message: names that may have been meant."""
    return f" (nearest: {', '.join(near)})" if near else ""
