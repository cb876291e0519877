"""Kinds, types and what is known of them: the vocabulary of `Btf`."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


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


TRANSPARENT = frozenset(
    {BtfKind.TYPEDEF, BtfKind.VOLATILE, BtfKind.CONST, BtfKind.RESTRICT, BtfKind.TYPE_TAG}
)
COMPOSITE = frozenset({BtfKind.STRUCT, BtfKind.UNION})
ENUMS = frozenset({BtfKind.ENUM, BtfKind.ENUM64})


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
