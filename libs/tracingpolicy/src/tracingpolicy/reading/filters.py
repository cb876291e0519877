"""matchArgs, matchData, matchReturnArgs: which argument, which operator, which values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tracingpolicy.cel import CelType
from tracingpolicy.model import OWN_API, Argument, HookKind
from tracingpolicy.operators import (
    OPERATORS,
    OPERATORS_BY_NAME,
    OWN_OPERATORS,
    Operands,
    Operator,
    operators_of,
)
from tracingpolicy.reading.cel import CelError, parse_expression, used_arguments
from tracingpolicy.reading.context import HookContext, kind_of
from tracingpolicy.reading.document import Node
from tracingpolicy.reading.fields import Fields
from tracingpolicy.reading.report import Report, quoted
from tracingpolicy.reading.values import doubtful_path, typed_values
from tracingpolicy.selectors import ValueFilter
from tracingpolicy.types import TYPES, ArgumentType, Family
from tracingpolicy.values import ListReference, Value

_ARGUMENT_OPERATORS = {
    name: op for name, op in OPERATORS_BY_NAME.items() if op not in (Operator.IN, Operator.NOT_IN)
}
# Spellings that the documentation or habit suggests, but Tetragon's schema refuses.
_VALUELESS = {Operands.NONE}
_CAPABILITY_SETS = "two capability sets: args: [old, new]"


class Problem(NamedTuple):
    """What is wrong with a filter: at ``values`` (an element of it), ``operator`` or an operand."""

    key: str
    element: int | None
    message: str
    allowed: str = ""


class Typed(NamedTuple):
    """A filter's values for the types of its operands."""

    operands: tuple[int, ...]
    values: tuple[Value, ...]
    problems: tuple[Problem, ...]


def typed(
    operator: Operator,
    texts: Sequence[str],
    operands: Sequence[int],
    kinds: Mapping[int, ArgumentType | None],
) -> Typed:
    """Return what a filter compares, given the types of all arguments by their position.

    A type of None is not known yet: nothing that depends on it is checked, and values stay empty.
    """
    if operator is Operator.CEL:
        return _expression(texts, kinds)
    known = [kinds.get(position) for position in operands]
    problems = [
        Problem("operator", None, *_cannot_compare(operator, kind))
        for kind in known
        if kind is not None and operator not in operators_of(kind)
    ]
    if operator is Operator.CAPABILITIES_GAINED and len(operands) != 2:
        problems.append(
            Problem("args", None, "CapabilitiesGained needs two arguments", _CAPABILITY_SETS)
        )
    elif operator is not Operator.CAPABILITIES_GAINED and len(operands) > 1:
        problems.append(Problem("args", None, f"{operator.value} compares one argument", "one"))
    needs_values = OPERATORS[operator].operands not in _VALUELESS
    if needs_values and not texts:
        problems.append(Problem("values", None, f"operator {operator.value} needs values"))
    if problems or not known or known[0] is None:
        return Typed(tuple(operands), (), tuple(problems))
    values, refused = typed_values(operator, texts, known[0])
    found = [Problem("values", one.position, one.message, one.allowed) for one in refused]
    return Typed(tuple(operands), values, tuple(found))


def _cannot_compare(operator: Operator, kind: ArgumentType) -> tuple[str, str]:
    fitting = operators_of(kind)
    if not fitting:
        return f"an argument of type {kind.value} cannot be filtered", ""
    names = ", ".join(op.value for op in fitting)
    return f"operator {operator.value} does not compare an argument of type {kind.value}", names


def _expression(texts: Sequence[str], kinds: Mapping[int, ArgumentType | None]) -> Typed:
    if len(texts) != 1:
        message = f"CelExpr has {len(texts)} values"
        return Typed((), (), (Problem("values", None, message, "one expression"),))
    if any(kind is None for kind in kinds.values()):
        return Typed((), (), ())
    types = {position: cel_type(kind) for position, kind in kinds.items() if kind is not None}
    try:
        expression = parse_expression(texts[0], types)
    except CelError as error:
        message = f"CelExpr: {error.message} (character {error.offset + 1})"
        return Typed((), (), (Problem("values", 0, message, error.allowed),))
    return Typed(tuple(sorted(used_arguments(expression.root))), (expression,), ())


def cel_type(kind: ArgumentType) -> CelType | None:
    """Return the type of an argument in expressions; None if it is not a number."""
    info = TYPES[kind]
    if info.family is not Family.NUMBER or kind is ArgumentType.SYSCALL64:
        return None
    if info.bits <= 32:
        return CelType.S32 if info.signed else CelType.U32
    return CelType.S64 if info.signed else CelType.U64


# --- the document ------------------------------------------------------------------------------


def read_filter(
    report: Report, node: Node, path: str, section: str, hook: HookContext | None
) -> ValueFilter | None:
    """Return one element of a section; ``hook`` is None in a macro that no selector names."""
    keys = ("index", "args", "operator", "values")
    fields = Fields(report, node, path, keys, required=("operator",))
    operator = fields.choice("operator", _ARGUMENT_OPERATORS, None, "an operator")
    if operator in OWN_OPERATORS and hook is not None and not hook.policy.own_api:
        message = f"Tetragon has no operator {operator.value}"
        fields.fail(message, "operator", f"apiVersion: {OWN_API}")
        return None
    texts = tuple(text for text, _ in fields.texts("values"))
    index = fields.number("index")
    positions = [number for number, _ in fields.numbers("args")]
    if operator is None or fields.failed("values") or hook is None:
        return None
    arguments = _arguments(section, hook)
    operands: tuple[int, ...] | None = ()
    if operator is not Operator.CEL:  # it names its arguments itself
        operands = _operands(fields, section, hook, arguments, index, positions)
    if operands is None:
        return None
    kinds = {position: kind_of(argument) for position, argument in enumerate(arguments)}
    made = typed(operator, texts, operands, kinds)
    for problem in made.problems:
        _fail(fields, problem)
    first = kinds.get(operands[0]) if operands else None
    for number, text in enumerate(texts):
        if first is not None and doubtful_path(operator, text, first):
            fields.doubt(f"no path is {quoted(text)}: a path begins with /", f"values[{number}]")
    _check_lists(fields, made.values, hook)
    return ValueFilter(
        operands=made.operands,
        operator=operator,
        values=made.values,
        texts=texts,
        place=fields.place(),
    )


def _fail(fields: Fields, problem: Problem) -> None:
    where = fields.position(problem.key)
    path = f"{fields.path}.{problem.key}"
    if problem.element is not None:
        where = fields.entries[problem.key].items[problem.element].position
        path += f"[{problem.element}]"
    fields.report.add(where, f"{path}: {problem.message}", problem.allowed)


def _arguments(section: str, hook: HookContext) -> tuple[Argument | None, ...]:
    if section == "matchArgs":
        return hook.args
    if section == "matchData":
        return hook.data
    return (hook.returned,) if hook.returned else ()


def _operands(
    fields: Fields,
    section: str,
    hook: HookContext,
    arguments: tuple[Argument | None, ...],
    index: int,
    positions: list[int],
) -> tuple[int, ...] | None:
    """Return positions in the list of arguments, or None after a mistake."""
    if fields.failed("index") or fields.failed("args"):
        return None
    source = {"matchArgs": "args", "matchData": "data"}.get(section, "returnArg")
    if not arguments:
        fields.fail(f"the hook has no {source}")
        return None
    if positions:
        wrong = [position for position in positions if position >= len(arguments)]
        if wrong:
            message = f"position {wrong[0]} is not in the hook's {source}"
            fields.fail(message, "args", f"0 to {len(arguments) - 1}")
        return None if wrong else tuple(positions)
    if section == "matchData":
        if index < len(arguments):
            return (index,)
        fields.fail(
            f"position {index} is not in the hook's data", "index", f"0 to {len(arguments) - 1}"
        )
        return None
    return _by_index(fields, hook, arguments, index, source)


def _by_index(
    fields: Fields,
    hook: HookContext,
    arguments: tuple[Argument | None, ...],
    index: int,
    source: str,
) -> tuple[int, ...] | None:
    for position, argument in enumerate(arguments):
        if argument is not None and argument.index == index:
            return (position,)
    if any(argument is None for argument in arguments):
        return None
    # In tracepoints index may also be a position in the list; policies use both.
    if hook.kind is HookKind.TRACEPOINT and index < len(arguments):
        return (index,)
    has = ", ".join(str(argument.index) for argument in arguments if argument)
    fields.fail(f"no argument in {source} has index {index}", "index", has)
    return None


def _check_lists(fields: Fields, values: tuple[Value, ...], hook: HookContext) -> None:
    for value in values:
        if isinstance(value, ListReference) and value.name not in hook.policy.lists:
            fields.fail(
                f"list {value.name} is not in spec.lists",
                "values",
                ", ".join(sorted(hook.policy.lists)),
            )
