"""Filters on numbers: Equal, GT, LT, Mask, InRange, InMap and their opposites."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from collector.policies.ctext import any_of, negated, signed, unsigned
from tracingpolicy.operators import OPERATORS, Operator
from tracingpolicy.selectors import ValueFilter
from tracingpolicy.values import Range

if TYPE_CHECKING:
    from collector.policies.arguments.base import Unit

Interval = tuple[int, int]

_CHAIN_MAX = 4  # intervals that are compared one by one; more are searched


def condition(
    name: str, one: ValueFilter, *, signed: bool, bits: int, unit: Unit | None = None
) -> str:
    """Return the C condition of a filter on the 64-bit variable ``name``."""
    opposite = OPERATORS[one.operator].opposite
    if opposite is not None:
        return negated(_positive(name, opposite, one, signed=signed, bits=bits, unit=unit))
    return _positive(name, one.operator, one, signed=signed, bits=bits, unit=unit)


def _positive(
    name: str, operator: Operator, one: ValueFilter, *, signed: bool, bits: int, unit: Unit | None
) -> str:
    typed = f"(s64){name}" if signed else name
    values = [value for value in one.values if isinstance(value, int)]
    if operator is Operator.GT:
        return any_of(f"{typed} > {literal(value, signed)}" for value in values)
    if operator is Operator.LT:
        return any_of(f"{typed} < {literal(value, signed)}" for value in values)
    if operator is Operator.MASK:
        width = (1 << bits) - 1
        return any_of(f"({name} & {unsigned(value & width)}) != 0" for value in values)
    return contains(name, intervals(one.values), is_signed=signed, unit=unit)


def literal(value: int, is_signed: bool) -> str:
    """Return a value as a literal of the variable's signedness."""
    return signed(value) if is_signed else unsigned(value)


def intervals(values: Iterable[object]) -> list[Interval]:
    """Return numbers and ranges as sorted intervals that do not touch."""
    pairs = sorted(
        (value.low, value.high) if isinstance(value, Range) else (value, value)
        for value in values
        if isinstance(value, int | Range)
    )
    merged: list[Interval] = []
    for low, high in pairs:
        if low > high:
            continue
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def contains(name: str, found: list[Interval], *, is_signed: bool, unit: Unit | None) -> str:
    """Return a condition that is true where the variable lies in one of the intervals."""
    typed = f"(s64){name}" if is_signed else name
    if len(found) <= _CHAIN_MAX or unit is None:
        return any_of(_inside(typed, one, is_signed) for one in found)
    function = unit.unique("in_set")
    kind = "s64" if is_signed else "u64"
    body = "\n".join(_search("x", found, is_signed, 1))
    unit.functions.append(f"static __always_inline bool {function}({kind} x)\n{{\n{body}\n}}")
    return f"{function}({typed})"


def _inside(typed: str, one: Interval, is_signed: bool) -> str:
    low, high = one
    if low == high:
        return f"{typed} == {literal(low, is_signed)}"
    if low <= 0 and not is_signed:
        return f"{typed} <= {literal(high, is_signed)}"
    return f"({typed} >= {literal(low, is_signed)} && {typed} <= {literal(high, is_signed)})"


def _search(name: str, found: list[Interval], is_signed: bool, depth: int) -> list[str]:
    """Return a binary search over sorted intervals."""
    indent = "\t" * depth
    if len(found) <= _CHAIN_MAX:
        return [f"{indent}return {any_of(_inside(name, one, is_signed) for one in found)};"]
    middle = len(found) // 2
    return [
        f"{indent}if ({name} < {literal(found[middle][0], is_signed)}) {{",
        *_search(name, found[:middle], is_signed, depth + 1),
        f"{indent}}}",
        *_search(name, found[middle:], is_signed, depth),
    ]
