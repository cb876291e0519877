"""The filters of a hook as steps: each reads something once and holds the conditions on it.

Steps are sorted by cost; a step's conditions belong to the selectors that compare what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from collector.policies.arguments import READERS
from collector.policies.arguments.base import POSITION_DATA, Arg, Cost, Unit
from collector.policies.arguments.files import look, sight
from collector.policies.ctext import Lines, quoted
from collector.policies.plan import PlannedArgument
from collector.policies.selectors import cel, process_filters
from collector.policies.sources import Frame
from tracingpolicy.selectors import Selector, ValueFilter
from tracingpolicy.types import ArgumentType


@dataclass(slots=True)
class Step:
    """Something to read, and the conditions on it: selector, C, what it quotes."""

    cost: Cost
    arg: Arg | None = None
    filters: list[ValueFilter] = field(default_factory=list)
    prepare: tuple[str, ...] = ()
    conditions: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Values:
    """The arguments of one program, and what its text has done with them so far."""

    args: list[Arg]
    data: list[Arg]
    unit: Unit
    frame: Frame
    out: Lines
    fetched: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    prepared: set[str] = field(default_factory=set)  # shared lines that are in the text
    scratch: bool = False

    @classmethod
    def of(
        cls,
        args: Sequence[PlannedArgument],
        data: Sequence[PlannedArgument],
        unit: Unit,
        frame: Frame,
        out: Lines,
    ) -> Values:
        """Return them with their names and positions."""
        return cls(
            Arg.of(args, "arg", 0, "args"),
            Arg.of(data, "data", POSITION_DATA, "data"),
            unit,
            frame,
            out,
        )

    def reported(self) -> list[Arg]:
        """Return those that the record has."""
        return [one for one in (*self.args, *self.data) if one.type is not ArgumentType.NOP]

    def fetch(self, arg: Arg) -> None:
        """Declare an argument's variables and get its raw value, once."""
        if arg.name not in self.fetched:
            self.fetched.add(arg.name)
            reader = READERS[arg.type]
            self.unit.headers.update(reader.headers)
            reader.fetch(arg, self.frame, self.out)

    def write(self, arg: Arg) -> None:
        """Append an argument's item, once."""
        self.fetch(arg)
        if arg.name not in self.written:
            self.written.add(arg.name)
            READERS[arg.type].write(arg, self.out)

    def take_scratch(self) -> None:
        """Take scratch space, once; without any the call is lost and counted."""
        if not self.scratch:
            self.scratch = True
            self.out.add("s = take_scratch();", "if (!s)", "\tgoto leave;")

    def read(self, step: Step) -> None:
        """Make what a step's conditions compare."""
        if step.cost is Cost.SIGHT and step.arg is not None:
            self.fetch(step.arg)
            self.out.add(*step.prepare)
            return
        if step.arg is None:
            new = [line for line in step.prepare if line not in self.prepared]
            self.prepared.update(new)
            self.out.add(*new)
            return
        for one in self._operands(step, step.arg):
            self.fetch(one)
            if one is not step.arg and one.name not in self.written:
                READERS[one.type].read(one, [], self.out)
        if step.cost in (Cost.TEXT, Cost.PATH):
            self.take_scratch()
        if READERS[step.arg.type].read(step.arg, step.filters, self.out):
            self.written.add(step.arg.name)

    def _operands(self, step: Step, arg: Arg) -> list[Arg]:
        found = {arg.name: arg}
        for one in step.filters:
            for position in one.operands:
                found.setdefault(arg.section[position].name, arg.section[position])
        return list(found.values())


def steps(selectors: Sequence[Selector], values: Values) -> list[Step]:
    """Return the steps of a hook's selectors in the order of their cost."""
    found = [*_process_steps(selectors, values.unit), *_value_steps(selectors, values)]
    return sorted(found, key=lambda one: one.cost)


def _process_steps(selectors: Sequence[Selector], unit: Unit) -> list[Step]:
    found: dict[tuple[str, ...], Step] = {}
    for number, selector in enumerate(selectors):
        for one in process_filters(selector, unit):
            unit.headers.update(one.headers)
            cost = Cost.CHANGE if one.late else Cost.PROCESS
            step = found.setdefault((*one.prepare, cost.name), Step(cost, prepare=one.prepare))
            step.conditions.append((number, one.condition, f"selectors[{number}].{one.what}"))
    return list(found.values())


def _value_steps(selectors: Sequence[Selector], values: Values) -> list[Step]:
    by_arg: dict[str, tuple[Arg, list[tuple[int, str, ValueFilter]]]] = {}
    constant = Step(Cost.NUMBER)
    for number, selector in enumerate(selectors):
        for key, filters, args in (
            ("matchArgs", selector.args, values.args),
            ("matchData", selector.data, values.data),
        ):
            for place, one in enumerate(filters):
                if not one.operands:  # an expression without arguments
                    what = f"selectors[{number}].{key}[{place}]: {describe(one)}"
                    constant.conditions.append((number, cel.condition(one), what))
                    continue
                # With several operands: the last; the others are read before it.
                arg = max((args[n] for n in one.operands), key=lambda a: a.position)
                _, compared = by_arg.setdefault(arg.name, (arg, []))
                compared.append((number, f"{key}[{place}]", one))
    found = [_value_step(arg, filters, values.unit) for arg, filters in by_arg.values()]
    found += filter(None, (_sight_step(arg, filters) for arg, filters in by_arg.values()))
    return [constant, *found] if constant.conditions else found


def _sight_step(arg: Arg, found: list[tuple[int, str, ValueFilter]]) -> Step | None:
    """Return what filters most files before their paths are walked."""
    step = Step(Cost.SIGHT, arg, prepare=look(arg))
    for number, key, one in found:
        if condition := sight(arg, one):
            what = f"selectors[{number}].{key}: {arg.what} may be {describe(one)}"
            step.conditions.append((number, condition, what))
    return step if step.conditions else None


def _value_step(arg: Arg, found: list[tuple[int, str, ValueFilter]], unit: Unit) -> Step:
    filters = [one for _, _, one in found]
    reader = READERS[arg.type]
    unit.headers.update(reader.headers)
    step = Step(reader.cost(arg, filters), arg, filters)
    for number, key, one in found:
        condition = reader.condition(arg, one, filters, unit)
        what = f"selectors[{number}].{key}: {arg.what} {describe(one)}"
        step.conditions.append((number, condition, what))
    return step


def describe(one: ValueFilter) -> str:
    """Return a filter for a comment: the operator and its values."""
    values = [
        quoted(value) if isinstance(value, bytes) else str(getattr(value, "text", value))
        for value in one.values
    ]
    return f"{one.operator.value} {', '.join(values)}".rstrip()
