"""CelExpr: the typed tree of an expression as a C expression.

Arithmetic wraps in the width of its type, as in Tetragon's compiled form; C's own overflow of
signed numbers is undefined, so it is done in unsigned numbers and converted back.
"""

from __future__ import annotations

from tracingpolicy.cel import ArgumentValue, Binary, CelType, Conversion, Expression, Literal, Node
from tracingpolicy.selectors import ValueFilter

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


def condition(one: ValueFilter) -> str:
    """Return the expression of a filter as C."""
    (expression,) = one.values
    assert isinstance(expression, Expression)
    return f"({c_expression(expression.root)})"


def c_expression(node: Node) -> str:
    """Return a node and what is below it as a C expression of the node's type."""
    if isinstance(node, ArgumentValue):
        return f"({_C_TYPES[node.type]})arg{node.argument}"
    if isinstance(node, Literal):
        return _literal(node)
    if isinstance(node, Conversion):
        return f"({_C_TYPES[node.type]})({c_expression(node.operand)})"
    if isinstance(node, Binary):
        return _binary(node)
    operand = c_expression(node.operand)
    if node.operator == "!":
        return f"!({operand})"
    return f"({_C_TYPES[node.type]})(0 - ({_UNSIGNED[node.type]})({operand}))"


def _literal(node: Literal) -> str:
    if node.type is CelType.BOOL:
        return "true" if node.value else "false"
    c_type = _C_TYPES[node.type]
    return f"(({c_type}){node.value & (1 << 64) - 1:#x}ull)"


def _binary(node: Binary) -> str:
    left, right = c_expression(node.left), c_expression(node.right)
    if node.operator in ("+", "-"):
        plain = _UNSIGNED[node.type]
        return f"({_C_TYPES[node.type]})(({plain})({left}) {node.operator} ({plain})({right}))"
    if node.operator == "^":
        return f"(({left}) != ({right}))"
    return f"(({left}) {node.operator} ({right}))"
