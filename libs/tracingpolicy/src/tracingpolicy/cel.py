"""The expressions of operator CelExpr as a typed tree.

``arg0``, ``arg1``, ... are positions in the list of arguments. The types are s32, u32, s64, u64 and
bool; both sides of a binary operator have the same type.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class CelType(Enum):
    """The type of an expression."""

    S32 = "s32"
    U32 = "u32"
    S64 = "s64"
    U64 = "u64"
    BOOL = "bool"


@dataclass(frozen=True, slots=True)
class ArgumentValue:
    """``argN``."""

    argument: int
    type: CelType


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, or true and false as 1 and 0."""

    value: int
    type: CelType


@dataclass(frozen=True, slots=True)
class Conversion:
    """``int32(x)`` or ``uint32(x)``."""

    operand: Node
    type: CelType


@dataclass(frozen=True, slots=True)
class Unary:
    """``!x`` or ``not(x)`` as ``!``, and ``-x``."""

    operator: str
    operand: Node
    type: CelType


@dataclass(frozen=True, slots=True)
class Binary:
    """One of ``== != < <= > >= + - && || ^``; ``and or xor`` are ``&& || ^``."""

    operator: str
    left: Node
    right: Node
    type: CelType


Node = ArgumentValue | Literal | Conversion | Unary | Binary


@dataclass(frozen=True, slots=True)
class Expression:
    """A whole expression; its type is bool."""

    root: Node
    text: str
