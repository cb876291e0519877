"""One program in C: the steps from the hook to the record.

Order: mode, numbers, process, short texts, objects; then scratch space, texts and paths; the rest
of the arguments when a selector has matched; rate limit, stacks, the ring. A step reads something
once and holds the conditions of all selectors on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from collector.policies.actions import PostActions
from collector.policies.arguments import READERS
from collector.policies.arguments.base import POSITION_DATA, POSITION_RETURN, Arg, Cost, Unit
from collector.policies.ctext import Lines, comment, negated, quoted
from collector.policies.plan import Mechanism, Plan, PlannedArgument, PlannedHook, Target
from collector.policies.selectors import process_filters
from collector.policies.sources import Frame
from tracingpolicy.selectors import Selector, ValueFilter
from tracingpolicy.types import ArgumentType


@dataclass(slots=True)
class Step:
    """Something to read, and the conditions on it, each with its selector and a comment."""

    cost: Cost
    arg: Arg | None = None
    filters: list[ValueFilter] = field(default_factory=list)
    prepare: tuple[str, ...] = ()
    conditions: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Values:
    """The arguments of one program, and what has been done with them so far."""

    args: list[Arg] = field(default_factory=list)
    data: list[Arg] = field(default_factory=list)
    fetched: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    scratch: bool = False

    def all(self) -> list[Arg]:
        """Return those that the record has."""
        return [one for one in (*self.args, *self.data) if one.type is not ArgumentType.NOP]


@dataclass(slots=True)
class HookText:
    """The functions of one planned hook, for targets that have the same arguments."""

    plan: Plan
    hook: PlannedHook
    target: Target
    number: int  # of the planned hook, in comments
    first_counter: int
    unit: Unit

    @property
    def selectors(self) -> tuple[Selector, ...]:
        """The hook's selectors; none means one that matches always."""
        return self.hook.hook.selectors or (Selector(),)

    def entry(self, name: str, frame: Frame, *, by_table: bool) -> str:
        """Return the program at the hook."""
        out, values = Lines(), self._values()
        self._begin(frame, out, by_table=by_table)
        self._filter(values, frame, out)
        self._record(values, frame, out)
        self._end(values, frame, out)
        return self._function(name, frame, out)

    def _function(self, name: str, frame: Frame, out: Lines) -> str:
        head = comment(f"{frame.mechanism.value}: {self.target.name}")
        return f"{head}\nint {name}(u64 *ctx)\n{{\n{out.text()}\n}}"

    def _values(self) -> Values:
        planned = self.target.args if self.target.args is not None else self.hook.args
        return Values(
            [Arg(one, f"arg{n}", n, f"args[{n}]") for n, one in enumerate(planned)],
            [
                Arg(one, f"data{n}", POSITION_DATA + n, f"data[{n}]")
                for n, one in enumerate(self.hook.data)
            ],
        )

    # --- the beginning: which hook, whether the policy is on

    def _begin(self, frame: Frame, out: Lines, *, by_table: bool) -> None:
        out.add("struct scratch *s = NULL;")
        if frame.dispatched:
            self.unit.headers.add("dispatch.h")
        out.add("u32 hook = NUMBER(NUMBER_HOOK);" if not frame.by_cookie
                else "u32 hook = bpf_get_attach_cookie(ctx);")  # fmt: skip
        if by_table:
            out.add("hook += hook_of_syscall(MAP_VALUE(MAP_SYSCALL_HOOKS), ctx);")
        out.add("", "if (policy_mode() == MODE_OFF)", "\tgoto leave;")
        if self.target.syscall is not None and frame.mechanism is Mechanism.SYS_ENTER:
            wanted = "!" if self.target.syscall.compat else ""
            out.comment("system calls of the other ABI have the same numbers")
            out.add(f"if ({wanted}is_compat_call())", "\tgoto leave;")

    # --- filters

    def _filter(self, values: Values, frame: Frame, out: Lines) -> None:
        count = len(self.selectors)
        if count > 1:
            out.add("", f"u32 candidates = {(1 << count) - 1:#x}; /* selectors that may match */")
        for step in sorted(self._steps(values), key=lambda one: one.cost):
            out.add("")
            self._read(step, values, frame, out)
            for selector, condition, what in step.conditions:
                out.comment(what)
                if count == 1:
                    out.add(f"if ({negated(condition)})", "\tgoto filtered;")
                else:
                    bit = 1 << selector
                    out.add(f"if ((candidates & {bit:#x}) && {negated(condition)})",
                            f"\tcandidates &= ~{bit:#x}u;")  # fmt: skip
            if count > 1 and step.conditions:
                out.add("if (!candidates)", "\tgoto filtered;")

    def _read(self, step: Step, values: Values, frame: Frame, out: Lines) -> None:
        if step.arg is None:
            out.add(*step.prepare)
            return
        for one in self._operands(step, values):
            self._fetch(one, values, frame, out)
        if step.cost >= Cost.TEXT and step.cost is not Cost.CHANGE:
            self._take(values, out)
        reader = READERS[step.arg.type]
        if reader.read(step.arg, step.filters, out):
            values.written.add(step.arg.name)

    def _operands(self, step: Step, values: Values) -> list[Arg]:
        assert step.arg is not None
        found = {step.arg.name: step.arg}
        for one in step.filters:
            for position in one.operands if step.arg in values.args else ():
                found.setdefault(values.args[position].name, values.args[position])
        return list(found.values())

    def _take(self, values: Values, out: Lines) -> None:
        if not values.scratch:
            values.scratch = True
            out.add("s = take_scratch();", "if (!s)", "\tgoto leave;")

    def _fetch(self, arg: Arg, values: Values, frame: Frame, out: Lines) -> None:
        if arg.name not in values.fetched:
            values.fetched.add(arg.name)
            reader = READERS[arg.type]
            self.unit.headers.update(reader.headers)
            reader.fetch(arg, frame, out)

    def _steps(self, values: Values) -> list[Step]:
        return [*self._process_steps(), *self._value_steps(values)]

    def _process_steps(self) -> list[Step]:
        steps: dict[tuple[str, ...], Step] = {}
        for number, selector in enumerate(self.selectors):
            for one in process_filters(selector, self.unit):
                self.unit.headers.update(one.headers)
                cost = Cost.CHANGE if one.late else Cost.PROCESS
                step = steps.setdefault((*one.prepare, cost.name), Step(cost, prepare=one.prepare))
                what = f"selectors[{number}].{one.what}"
                step.conditions.append((number, one.condition, what))
        return list(steps.values())

    def _value_steps(self, values: Values) -> list[Step]:
        """Return one step for each argument that is compared, behind all that it needs."""
        by_arg: dict[str, tuple[Arg, list[tuple[int, str, ValueFilter]]]] = {}
        for number, selector in enumerate(self.selectors):
            for key, filters, args in (
                ("matchArgs", selector.args, values.args),
                ("matchData", selector.data, values.data),
            ):
                for place, one in enumerate(filters):
                    arg = max((args[n] for n in one.operands), key=lambda a: a.position)
                    found = by_arg.setdefault(arg.name, (arg, []))
                    found[1].append((number, f"{key}[{place}]", one))
        return [self._value_step(arg, found, values) for arg, found in by_arg.values()]

    def _value_step(
        self, arg: Arg, found: list[tuple[int, str, ValueFilter]], values: Values
    ) -> Step:
        filters = [one for _, _, one in found]
        reader = READERS[arg.type]
        self.unit.headers.update(reader.headers)
        step = Step(reader.cost(arg, filters), arg, filters)
        for number, key, one in found:
            condition = reader.condition(arg, one, filters, self.unit)
            what = f"selectors[{number}].{key}: {arg.what} {describe(one)}"
            step.conditions.append((number, condition, what))
        return step

    # --- the record

    def _record(self, values: Values, frame: Frame, out: Lines) -> None:
        count = len(self.selectors)
        out.add("")
        if count == 1:
            out.add("u32 selector = 0;")
        else:
            chain = "".join(f"candidates & {1 << n:#x} ? {n} : " for n in range(count - 1))
            out.add(f"u32 selector = {chain}{count - 1}; /* the first that matches */")
        posts = [PostActions.of(one) for one in self.selectors]
        if not any(one.posts for one in posts):
            out.add(f"count({self._counter('COUNTER_NOT_POSTED')});")
            return
        for number, one in enumerate(posts):
            if not one.posts:
                out.comment(f"selectors[{number}].matchActions: NoPost")
                out.add(f"if (selector == {number}) {{",
                        f"\tcount({self._counter('COUNTER_NOT_POSTED')});",
                        "\tgoto leave_matched;", "}")  # fmt: skip
        self._take(values, out)
        out.add("begin_record(&s->record, hook, selector);")
        for arg in values.all():
            self._write(arg, values, frame, out)
        self._finish(posts, out)

    def _write(self, arg: Arg, values: Values, frame: Frame, out: Lines) -> None:
        self._fetch(arg, values, frame, out)
        if arg.name in values.written:
            return
        values.written.add(arg.name)
        READERS[arg.type].write(arg, out)

    def _finish(self, posts: list[PostActions], out: Lines) -> None:
        for number, one in enumerate(posts):
            if one.last:
                out.add(f"if (selector == {number})", f"\ts->record.action = {one.last};")
        for number, one in enumerate(posts):
            if one.posts and one.rate_limits:
                self.unit.headers.add("rates.h")
                out.comment(f"selectors[{number}].matchActions: Post rateLimit")
                out.add(f"if (selector == {number} && ({one.rate_limited()})) {{",
                        f"\tcount({self._counter('COUNTER_RATE_LIMITED')});",
                        "\tgoto leave_matched;", "}")  # fmt: skip
        out.add("if (post(s))", f"\tcount({self._counter('COUNTER_POSTED')});")

    def _counter(self, which: str) -> str:
        return f"COUNTER_OF({self.first_counter} + selector, {which})"

    # --- the end

    def _end(self, values: Values, frame: Frame, out: Lines) -> None:
        text = "\n".join(out.lines)
        out.add("goto leave_matched;") if "goto filtered" in text else None
        if "goto filtered" in text:
            out.label("filtered")
            out.add("count(0);")
        if "goto leave_matched" in text or "goto filtered" in text:
            out.label("leave_matched")
        if values.scratch:
            out.add("if (s)", "\trelease_scratch(s);")
        out.label("leave")
        if frame.mechanism is Mechanism.SYS_ENTER:
            out.add(
                "jump_to_level(ctx, MAP(MAP_SYSCALLS_ENTER), ctx[1], NUMBER(NUMBER_LEVEL) + 1);"
            )
        out.add("return 0;")


def describe(one: ValueFilter) -> str:
    """Return a filter for a comment: the operator and its values."""
    values = []
    for value in one.values:
        if isinstance(value, bytes):
            values.append(quoted(value))
        else:
            values.append(str(getattr(value, "text", value)))
    return f"{one.operator.value} {', '.join(values)}".rstrip()


def returned_arg(planned: PlannedArgument) -> Arg:
    """Return the argument that stands for the return value."""
    return Arg(planned, "returned", POSITION_RETURN, "returnArg")
