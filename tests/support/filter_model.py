"""Filters of policies in plain Python: what each operator means, for comparison with the kernel."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from collector.records.values import Sockaddr
from tracingpolicy.cel import ArgumentValue, Binary, CelType, Conversion, Expression, Literal, Node
from tracingpolicy.operators import OPERATORS, Operator
from tracingpolicy.selectors import ValueFilter
from tracingpolicy.types import TYPES, ArgumentType
from tracingpolicy.values import Range

_TEXT_MAX = 4095
_PREFIX_MAX = 255
_POSTFIX_MAX = 127
_FAMILIES = {2: IPv4Network, 10: IPv6Network}


def as_number(kind: ArgumentType, register: int) -> int:
    """Return what an argument of a type is when a register holds ``register``."""
    info = TYPES[kind]
    value = register & (1 << info.bits) - 1
    return value - (1 << info.bits) if info.signed and value >> info.bits - 1 else value


def number_matches(one: ValueFilter, value: int, bits: int) -> bool:
    """Return whether a filter on a number matches."""
    values: list[Any] = list(one.values)

    def holds(operator: Operator) -> bool:
        if operator is Operator.GT:
            return any(value > v for v in values)
        if operator is Operator.LT:
            return any(value < v for v in values)
        if operator is Operator.MASK:
            return any(value & v & (1 << bits) - 1 for v in values)
        return any(v.low <= value <= v.high if isinstance(v, Range) else value == v for v in values)

    return _with_sign(one, holds)


def text_matches(one: ValueFilter, text: bytes) -> bool:
    """Return whether a filter on a string matches."""
    text = text[:_TEXT_MAX]
    values = [v for v in one.values if isinstance(v, bytes)]

    def holds(operator: Operator) -> bool:
        if operator is Operator.EQUAL:
            return text in values
        if operator is Operator.PREFIX:
            return any(len(v) <= _PREFIX_MAX and text.startswith(v) for v in values)
        if operator is Operator.BELOW:
            return any(text == v or text.startswith(v.rstrip(b"/") + b"/") for v in values)
        if operator is Operator.POSTFIX:
            return any(len(v) <= _POSTFIX_MAX and text.endswith(v) for v in values)
        if operator is Operator.SUBSTRING_IGNORE_CASE:
            return any(v.lower() in text.lower() for v in values)
        return any(v in text for v in values)

    return _with_sign(one, holds)


def address_matches(one: ValueFilter, address: Sockaddr) -> bool:
    """Return whether a filter on a socket address matches."""
    values: list[Any] = list(one.values)
    operator = OPERATORS[one.operator].opposite or one.operator
    if operator is Operator.SADDR and address.family not in _FAMILIES:
        return False  # neither the operator nor its opposite

    def holds(operator: Operator) -> bool:
        if operator is Operator.SADDR:
            own = ip_address(address.addr)
            return any(own.version == v.version and own in v for v in values)
        if operator is Operator.SPORT_PRIVILEGED:
            return address.port < 1024
        number = address.family if operator is Operator.FAMILY else address.port
        return number_matches(
            ValueFilter(operands=(0,), operator=Operator.EQUAL, values=one.values), number, 16
        )

    return _with_sign(one, holds)


def _with_sign(one: ValueFilter, holds: Callable[[Operator], bool]) -> bool:
    opposite = OPERATORS[one.operator].opposite
    return holds(one.operator) if opposite is None else not holds(opposite)


# --- CelExpr

_BITS = {CelType.S32: (32, True), CelType.U32: (32, False), CelType.S64: (64, True)}


def _wrapped(value: int, kind: CelType) -> int:
    bits, is_signed = _BITS.get(kind, (64, False))
    value &= (1 << bits) - 1
    return value - (1 << bits) if is_signed and value >> bits - 1 else value


def cel_matches(expression: Expression, values: list[int]) -> bool:
    """Return the value of an expression over arguments."""
    return bool(_evaluate(expression.root, values))


def _evaluate(node: Node, values: list[int]) -> Any:
    if isinstance(node, ArgumentValue):
        return _wrapped(values[node.argument], node.type)
    if isinstance(node, Literal):
        return node.value
    if isinstance(node, Conversion):
        return _wrapped(_evaluate(node.operand, values), node.type)
    if isinstance(node, Binary):
        left, right = _evaluate(node.left, values), _evaluate(node.right, values)
        found = {
            "==": lambda: left == right,
            "!=": lambda: left != right,
            "<": lambda: left < right,
            "<=": lambda: left <= right,
            ">": lambda: left > right,
            ">=": lambda: left >= right,
            "+": lambda: _wrapped(left + right, node.type),
            "-": lambda: _wrapped(left - right, node.type),
            "&&": lambda: bool(left) and bool(right),
            "||": lambda: bool(left) or bool(right),
            "^": lambda: bool(left) != bool(right),
        }[node.operator]
        return found()
    operand = _evaluate(node.operand, values)
    return not operand if node.operator == "!" else _wrapped(-operand, node.type)
