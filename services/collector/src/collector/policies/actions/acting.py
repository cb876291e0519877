"""Actions that change something on the host, as C: signals, Override, Set, NotifyEnforcer.

They stand between the filters and the record, so neither NoPost, nor a rate limit, nor a full ring
keeps an action from being carried out. Each is counted by its outcome, see bpf/tracing/act.h.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from collector.policies.ctext import signed
from collector.policies.plan import (
    FunctionArgument,
    OverrideBy,
    PlannedHook,
    ProgramMemory,
    ProgramRegister,
    RegisterMove,
)
from collector.policies.steps import Values
from tracingpolicy.actions import ActionKind
from tracingpolicy.selectors import Action, Selector

_SIGKILL = 9
ACTING = frozenset(
    {
        ActionKind.SIGKILL,
        ActionKind.SIGNAL,
        ActionKind.OVERRIDE,
        ActionKind.NOTIFY_ENFORCER,
        ActionKind.CLEANUP_ENFORCER_NOTIFICATION,
        ActionKind.SET,
    }
)
_HEADERS = {
    ActionKind.OVERRIDE: "override.h",
    ActionKind.SET: "registers.h",
    ActionKind.NOTIFY_ENFORCER: "enforcers.h",
    ActionKind.CLEANUP_ENFORCER_NOTIFICATION: "enforcers.h",
}


def acts(selectors: Iterable[Selector], *, at_return: bool) -> bool:
    """Return whether a selector has an action that acts, at the entry or at the return."""
    return any(
        one.kind in ACTING
        for selector in selectors
        for one in (selector.return_actions if at_return else selector.actions)
    )


@dataclass(slots=True)
class ActingText:
    """Writes the actions of one program's selectors."""

    hook: PlannedHook
    values: Values
    first_counter: int
    several: bool  # the hook has more than one selector

    def write(self, number: int, section: str, actions: Iterable[Action]) -> None:
        """Append the actions of a selector, in the order of the document."""
        out, unit = self.values.out, self.values.unit
        acting = [one for one in actions if one.kind in ACTING]
        if not acting:
            return
        unit.maps.acting()
        unit.headers.add("act.h")
        self._fetch_first(acting)
        out.comment(f"selectors[{number}].{section}: {', '.join(a.kind.value for a in acting)}")
        if self.several:
            out.add(f"if (selector == {number}) {{")
            out.depth += 1
        for one in acting:
            header = _HEADERS.get(one.kind)
            unit.headers.update([header] if header else [])
            out.add(*self._statements(one))
        if self.several:
            out.depth -= 1
            out.add("}")

    def _fetch_first(self, acting: Iterable[Action]) -> None:
        """Get the arguments before their registers or memory change."""
        changes = (ActionKind.SET, ActionKind.OVERRIDE)
        if self.hook.override is not OverrideBy.REGISTERS and not any(
            one.kind is ActionKind.SET for one in acting
        ):
            return
        if any(one.kind in changes for one in acting):
            for arg in self.values.reported():
                self.values.fetch(arg)

    def _count(self, counter: str) -> str:
        return f"count(COUNTER_OF({self.first_counter} + selector, {counter}));"

    def _statements(self, one: Action) -> list[str]:
        match one.kind:
            case ActionKind.SIGKILL:
                return [self._count(f"send_signal(mode, {_SIGKILL})")]
            case ActionKind.SIGNAL:
                return [self._count(f"send_signal(mode, {one.arg_signal})")]
            case ActionKind.OVERRIDE:
                return self._override(one)
            case ActionKind.SET:
                return self._set(one)
            case ActionKind.NOTIFY_ENFORCER:
                missed = f"COUNTER_OF({self.first_counter} + selector, COUNTER_MISSED)"
                call = f"notify_enforcer(mode, {one.arg_error}, {one.arg_signal}, {missed})"
                return [self._count(call)]
            case _:
                return ["cleanup_notification();"]

    # --- Override

    def _override(self, one: Action) -> list[str]:
        by = self.hook.override
        if by is None:  # a tracepoint: it counts, and the event names it, as in Tetragon
            return [self._count("may_override(mode)")]
        if by in (OverrideBy.FMOD_RET, OverrideBy.LSM):
            if one.arg_error == 0:  # nothing changes, and another policy's error must stay
                return [self._count("may_override(mode)")]
            return [self._count(f"override(mode, {signed(one.arg_error)})")]
        if by is OverrideBy.RESULT:
            return self._if_allowed("may_override", "COUNTER_OVERRIDE",
                                    [f"verdict = {one.arg_error};"])  # fmt: skip
        if by is OverrideBy.HELPER:
            call = f"bpf_override_return(ctx, (u64){signed(one.arg_error)});"
            return self._if_allowed("may_override", "COUNTER_OVERRIDE", [call])
        self.values.unit.headers.add("registers.h")
        return self._if_allowed("may_override", "COUNTER_OVERRIDE", self._registers(one))

    def _if_allowed(self, asked: str, wanted: str, done: list[str]) -> list[str]:
        """Do something and count it, or count why not; the last line may set `became`."""
        return [
            "{",
            f"\tu32 became = {asked}(mode);",
            "",
            f"\tif (became == {wanted}) {{",
            *(f"\t\t{line}" for line in done),
            "\t}",
            f"\t{self._count('became')}",
            "}",
        ]

    def _registers(self, one: Action) -> list[str]:
        moves = self.hook.register_moves.get(one, ())
        if not moves:
            value = f"(u64){signed(one.arg_error)}"
            return [f"if (!return_from_function(ctx, {value}))", "\tbecame = COUNTER_FAILED;"]
        lines = [f"u64 move{n} = {_source(move)};" for n, move in enumerate(moves)]
        for n, move in enumerate(moves):
            if move.memory:
                lines += [
                    f"if (bpf_probe_read_user(&move{n}, 8, (void *)move{n}))",
                    "\tbecame = COUNTER_FAILED;",
                ]
        lines.append("if (became != COUNTER_FAILED) {")
        lines += [f"\t{_place(move)} = move{n};" for n, move in enumerate(moves)]
        return [*lines, "}"]

    # --- Set

    def _set(self, one: Action) -> list[str]:
        arg = self.values.args[one.arg_index]
        source, value = arg.planned.source, one.arg_value
        if isinstance(source, ProgramMemory):
            address = f"CONTEXT_REGISTER(ctx, {source.base})"
            if source.index is not None:
                address += f" + CONTEXT_REGISTER(ctx, {source.index}) * {source.scale}"
            done = [
                f"u32 value = {value}u;",
                "",
                f"if (bpf_probe_write_user((void *)({address} + ({source.offset})), &value, 4))",
                "\tbecame = COUNTER_FAILED;",
            ]
        else:
            assert isinstance(source, FunctionArgument | ProgramRegister)
            # Not the expression that reads the argument: that one cannot be assigned to.
            done = [f"CONTEXT_REGISTER(ctx, {_register_of(source)}) = {value}u;"]
        return self._if_allowed("may_set", "COUNTER_SET", done)


def _register_of(source: FunctionArgument | ProgramRegister) -> str:
    if isinstance(source, FunctionArgument):
        return f"REG_ARG{source.position}"
    return str(source.offset)


def _source(move: RegisterMove) -> str:
    if move.register is None:
        return f"(u64){signed(move.value)}"
    register = f"CONTEXT_REGISTER(ctx, {move.register})"
    if move.size < 8:
        register = f"(u64)(u{8 * move.size}){register}"
    return f"{register} + ({move.value})" if move.value else register


def _place(move: RegisterMove) -> str:
    return f"CONTEXT_REGISTER(ctx, {move.to})"
