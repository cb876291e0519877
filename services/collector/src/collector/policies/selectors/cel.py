"""CelExpr: the typed tree of an expression as a C expression.

Arithmetic wraps in the width of its type, as in Tetragon's compiled form; C's own overflow of
signed numbers is undefined, so it is done in unsigned numbers and converted back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tracingpolicy.cel import ArgumentValue, Binary, CelType, Conversion, Expression, Literal, Node
from tracingpolicy.selectors import ValueFilter

if TYPE_CHECKING:
    from collector.policies.arguments.base import Arg

_C_TYPES = {
    CelType.S32: "s32",
    CelType.U32: "u32",
    CelType.S64: "s64",
    CelType.U64: "u64",
    CelType.BOOL: "bool",
}
_UNSIGNED = {
    CelType.S32: "u32",
    CelType.U32: "u32",
    CelType.S64: "u64",
    CelType.U64: "u64",
    CelType.BOOL: "bool",
}


def condition(one: ValueFilter, section: Sequence[Arg] = ()) -> str:
    """Return the expression of a filter as C; an argument that cannot be read makes it false."""
    (expression,) = one.values
    assert isinstance(expression, Expression)
    used = [section[position] for position in one.operands]
    names = [arg.name for arg in section]
    readable = [f"!{arg.failed}" for arg in used if arg.can_fail]
    return f"({' && '.join([*readable, _c(expression.root, names)])})"


def _c(node: Node, names: Sequence[str]) -> str:
    """Return a node and what is below it as a C expression of the node's type."""
    if isinstance(node, ArgumentValue):
        return f"({_C_TYPES[node.type]}){names[node.argument]}"
    if isinstance(node, Literal):
        return _literal(node)
    if isinstance(node, Conversion):
        return f"({_C_TYPES[node.type]})({_c(node.operand, names)})"
    if isinstance(node, Binary):
        return _binary(node, names)
    operand = _c(node.operand, names)
    if node.operator == "!":
        return f"!({operand})"
    return f"({_C_TYPES[node.type]})(0 - ({_UNSIGNED[node.type]})({operand}))"


def _literal(node: Literal) -> str:
    if node.type is CelType.BOOL:
        return "true" if node.value else "false"
    c_type = _C_TYPES[node.type]
    return f"(({c_type}){node.value & (1 << 64) - 1:#x}ull)"


def _binary(node: Binary, names: Sequence[str]) -> str:
    left, right = _c(node.left, names), _c(node.right, names)
    if node.operator in ("+", "-"):
        plain = _UNSIGNED[node.type]
        return f"({_C_TYPES[node.type]})(({plain})({left}) {node.operator} ({plain})({right}))"
    if node.operator == "^":
        return f"(({left}) != ({right}))"
    return f"(({left}) {node.operator} ({right}))"
