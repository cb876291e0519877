"""Values of filters that the document alone does not have: by an argument's type, by a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from collector.policies.check import Checker, path_of
from collector.policies.plan import PlannedArgument
from tracingpolicy.model import Hook
from tracingpolicy.reading.filters import typed
from tracingpolicy.selectors import Selector, ValueFilter
from tracingpolicy.types import ArgumentType
from tracingpolicy.values import ListReference, Value

H = TypeVar("H", bound=Hook)


def retyped(
    checker: Checker,
    hook: H,
    args: tuple[PlannedArgument, ...],
    data: tuple[PlannedArgument, ...],
    returned: PlannedArgument | None,
) -> H:
    """Return the hook with the values of its filters in the arguments' final types."""
    sections = {
        "args": _changed(args),
        "data": _changed(data),
        "return_args": _changed((returned,) if returned else ()),
    }
    if not checker.sound or not any(changed for changed, _ in sections.values()):
        return hook
    selectors = tuple(
        _selector(checker, hook, number, selector, sections)
        for number, selector in enumerate(hook.selectors)
    )
    return replace(hook, selectors=selectors)


def _changed(
    arguments: tuple[PlannedArgument, ...],
) -> tuple[bool, dict[int, ArgumentType | None]]:
    kinds: dict[int, ArgumentType | None] = {i: one.type for i, one in enumerate(arguments)}
    return any(one.type is not one.argument.type for one in arguments), kinds


_KEYS = {"args": "matchArgs", "data": "matchData", "return_args": "matchReturnArgs"}


def _selector(
    checker: Checker,
    hook: Hook,
    number: int,
    selector: Selector,
    sections: Mapping[str, tuple[bool, dict[int, ArgumentType | None]]],
) -> Selector:
    made: dict[str, tuple[ValueFilter, ...]] = {}
    for name, (changed, kinds) in sections.items():
        if changed:
            path = f"{path_of(hook)}.selectors[{number}].{_KEYS[name]}"
            made[name] = tuple(
                _filter(checker, f"{path}[{position}]", one, kinds)
                for position, one in enumerate(getattr(selector, name))
            )
    return replace(
        selector,
        args=made.get("args", selector.args),
        data=made.get("data", selector.data),
        return_args=made.get("return_args", selector.return_args),
    )


def _filter(
    checker: Checker, path: str, one: ValueFilter, kinds: dict[int, ArgumentType | None]
) -> ValueFilter:
    result = typed(one.operator, one.texts, one.operands, kinds)
    for problem in result.problems:
        key: tuple[str | int, ...] = (problem.key,)
        if problem.element is not None:
            key = (problem.key, problem.element)
        checker.fail(one.place, path, problem.message, problem.allowed, *key)
    return replace(one, operands=result.operands, values=result.values)


def with_lists(hook: H, ids: Mapping[str, tuple[int, ...]]) -> H:
    """Return the hook with the ids of a list in place of each ``list:NAME``."""
    selectors = tuple(
        replace(selector, args=tuple(_with_list(one, ids) for one in selector.args))
        for selector in hook.selectors
    )
    return hook if selectors == hook.selectors else replace(hook, selectors=selectors)


def _with_list(one: ValueFilter, ids: Mapping[str, tuple[int, ...]]) -> ValueFilter:
    values: list[Value] = []
    for value in one.values:
        values += ids[value.name] if isinstance(value, ListReference) else (value,)
    return replace(one, values=tuple(values))
