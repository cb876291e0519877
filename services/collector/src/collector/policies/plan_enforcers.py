"""spec.enforcers: where a thread that NotifyEnforcer marked is stopped."""

from __future__ import annotations

from collector.bpf.programs import Kind
from collector.policies.check import Checker
from collector.policies.plan import Mechanism, OverrideBy, PlannedEnforcer, Target
from collector.policies.plan_functions import find_target
from collector.policies.plan_lists import Name, expand, function_name
from collector.policies.plan_override import gate_under
from tracingpolicy.actions import ActionKind
from tracingpolicy.model import Enforcer
from tracingpolicy.reading.report import quoted
from tracingpolicy.values import OverrideMethod

_M = Mechanism
_WITHOUT_ERROR = "argSig without argError"


def plan_enforcers(checker: Checker) -> tuple[PlannedEnforcer, ...]:
    """Return the planned enforcers of a policy; mistakes are noted."""
    planned = []
    for number, one in enumerate(checker.policy.enforcers):
        path = f"spec.enforcers[{number}]"
        targets = _targets(checker, one, path)
        for group in _by_kind(targets):
            made = _plan(checker, one, path, group)
            if made is not None:
                planned.append(made)
    return tuple(planned)


def _targets(checker: Checker, one: Enforcer, path: str) -> list[Target]:
    found: list[Target] = []
    for text in one.calls:
        for name in _names(checker, path, text):
            target = find_target(checker, name)
            if target is None:
                checker.fail(one.place, path, f"there is no function {quoted(text)}", "", "calls")
            elif target not in found:
                found.append(target)
    return found


def _names(checker: Checker, path: str, text: str) -> list[Name]:
    if not text.startswith("list:"):
        return [function_name(checker.host, text, syscall=not text.startswith("security_"))]
    for number, one in enumerate(checker.policy.lists):
        if one.name == text.removeprefix("list:"):
            return expand(checker, one, f"spec.lists[{number}]", syscall=True)
    return []


def _by_kind(targets: list[Target]) -> list[tuple[Target, ...]]:
    """Return functions and system calls apart: what overrides them can differ."""
    groups = [
        tuple(one for one in targets if (one.syscall is not None) is syscalls)
        for syscalls in (False, True)
    ]
    return [group for group in groups if group]


def _overrides(checker: Checker) -> bool:
    """Return whether any notification of the policy asks for an error."""
    return any(
        action.kind is ActionKind.NOTIFY_ENFORCER and action.arg_error
        for hook in checker.policy.hooks()
        for selector in hook.selectors
        for action in (*selector.actions, *selector.return_actions)
    )


def _plan(
    checker: Checker, one: Enforcer, path: str, targets: tuple[Target, ...]
) -> PlannedEnforcer | None:
    why_no_program = [
        f"{entry.value}: {why}"
        for entry in (_M.FENTRY, _M.KPROBE)
        if (why := checker.host.why_not(entry, False))
    ]
    entry = _M.KPROBE if why_no_program else _M.FENTRY
    if len(why_no_program) == 2:
        message = f"{targets[0].name} cannot be hooked here: {'; '.join(why_no_program)}"
        checker.fail(one.place, path, message, "", "calls")
        return None
    if not _overrides(checker):
        return PlannedEnforcer(entry=entry, override=None, targets=targets)
    override, reasons = _override(checker, targets)
    if override is None:
        message = f"{targets[0].name} cannot be overridden here: {reasons}"
        under = gate_under(checker, targets[0])
        allowed = f"{under} as the enforcer; {_WITHOUT_ERROR}" if under else _WITHOUT_ERROR
        checker.fail(one.place, path, message, allowed, "calls")
        return None
    if override is OverrideBy.HELPER:
        entry = _M.KPROBE
    return PlannedEnforcer(entry=entry, override=override, targets=targets)


def _override(checker: Checker, targets: tuple[Target, ...]) -> tuple[OverrideBy | None, str]:
    """Return what overrides the functions: the option's method, or the first that works."""
    acting, wanted = checker.host.acting, checker.policy.options.override_method
    reasons = []
    if wanted is not OverrideMethod.OVERRIDE_RETURN:
        why = next(
            filter(None, (acting.why_no_gate(Kind.FMOD_RET, one.btf_id) for one in targets)), ""
        )
        if not why:
            return OverrideBy.FMOD_RET, ""
        reasons.append(f"{OverrideBy.FMOD_RET.value}: {why}")
    if wanted is not OverrideMethod.FMOD_RET:
        why = acting.why_no_override_helper()
        if any(one.syscall is None for one in targets):
            why = "it works on system calls"
        if not why:
            return OverrideBy.HELPER, ""
        reasons.append(f"{OverrideBy.HELPER.value}: {why}")
    return None, "; ".join(reasons)
