"""A plan as the policy table has it: one hook per target, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from chassis.goquote import escaped_bytes
from collector.policies.plan import Plan, PlannedArgument, PlannedHook, Target
from collector.policies.table import (
    Argument,
    EventKind,
    Hook,
    LoadedPolicy,
    Request,
    RequestKind,
)
from tracingpolicy.actions import ActionKind
from tracingpolicy.model import HookKind, Tracepoint, Uprobe, Usdt
from tracingpolicy.selectors import Selector

_KINDS = {
    HookKind.KPROBE: EventKind.KPROBE,
    HookKind.FENTRY: EventKind.KPROBE,
    HookKind.TRACEPOINT: EventKind.TRACEPOINT,
    HookKind.UPROBE: EventKind.UPROBE,
    HookKind.USDT: EventKind.USDT,
    HookKind.LSM: EventKind.LSM,
    HookKind.LOADER: EventKind.LOADER,
}


def loaded_policy(plan: Plan, number: int, revision: int, domain: str = "static") -> LoadedPolicy:
    """Return the table entry of ``plan``; `Generated.hooks` are indexes into its hooks."""
    policy = plan.policy
    return LoadedPolicy(
        number, revision, policy.name, policy.namespace, domain, tuple(_hooks(plan))
    )


def _hooks(plan: Plan) -> Iterator[Hook]:
    for planned in plan.hooks:
        for target in planned.targets:
            yield _hook(planned, target)


def _hook(planned: PlannedHook, target: Target) -> Hook:
    hook = planned.hook
    args = planned.args if target.args is None else target.args
    facts = Hook(
        _KINDS[hook.kind],
        message=escaped_bytes(hook.message),
        tags=tuple(map(escaped_bytes, hook.tags)),
        args=_arguments(args),
        data=_arguments(planned.data),
        returned=_argument(planned.returned) if planned.returned else None,
        requests=_requests(hook.selectors),
    )
    match hook:
        case Tracepoint():
            return replace(facts, subsystem=hook.subsystem, event=hook.event)
        case Uprobe():
            named = bool(hook.symbols)
            return replace(
                facts,
                path=target.path,
                symbol=target.name if named else "",
                offset=0 if named else target.offset,
                ref_ctr_offset=target.ref_ctr_offset,
            )
        case Usdt():
            return replace(facts, path=target.path, provider=hook.provider, name=hook.name)
    return replace(facts, function=target.name)


def _requests(selectors: tuple[Selector, ...]) -> tuple[tuple[Request, ...], ...]:
    """Return the requests that events of each selector cause; () if none causes any."""
    found = tuple(
        tuple(
            Request(RequestKind(one.kind.value), one.arg_url or one.arg_fqdn)
            for one in (*selector.actions, *selector.return_actions)
            if one.kind in (ActionKind.GET_URL, ActionKind.DNS_LOOKUP)
        )
        for selector in selectors
    )
    return found if any(found) else ()


def _arguments(planned: tuple[PlannedArgument, ...]) -> tuple[Argument, ...]:
    return tuple(map(_argument, planned))


def _argument(planned: PlannedArgument) -> Argument:
    return Argument(planned.type.value, planned.argument.label)
