"""A document to its plan on this host: the entry to checking and planning."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from collector.policies.check import Checker, Host
from collector.policies.check_supported import check_hook
from collector.policies.plan import HookStatus, Plan, PlannedHook
from collector.policies.plan_enforcers import plan_enforcers
from collector.policies.plan_filters import with_lists
from collector.policies.plan_functions import plan_function
from collector.policies.plan_lists import syscall_ids
from collector.policies.plan_loader import plan_loader
from collector.policies.plan_lsm import plan_lsm
from collector.policies.plan_programs import plan_uprobe, plan_usdt
from collector.policies.plan_tracepoints import plan_tracepoint
from tracingpolicy import read
from tracingpolicy.model import Hook, Kprobe, Loader, Lsm, Policy, Tracepoint, Uprobe, Usdt
from tracingpolicy.position import PolicyErrors
from tracingpolicy.reading.report import Report
from tracingpolicy.values import ListReference


def check_document(text: str | bytes, file: str, host: Host) -> Plan:
    """Return the plan of a document; raise `PolicyErrors` with all its mistakes."""
    policy, mistakes = read(text, file)
    report = Report(file)
    report.mistakes = dict.fromkeys(mistakes)
    if policy is None:
        raise PolicyErrors(mistakes)
    if mistakes or not policy.variants:
        return _plan(Checker(host, policy, report, sound=not mistakes))
    return plan_policy(policy, host)


def plan_policy(policy: Policy, host: Host) -> Plan:
    """Return the plan of a policy: of its first variant that this kernel can serve.

    Raises `PolicyErrors` with the mistakes of the last one.
    """
    for variant in policy.variants[:-1]:
        with contextlib.suppress(PolicyErrors):
            return _plan(Checker(host, variant, Report(policy.file), sound=True))
    last = policy.variants[-1] if policy.variants else policy
    return _plan(Checker(host, last, Report(policy.file), sound=True))


def _plan(checker: Checker) -> Plan:
    hooks: list[PlannedHook] = []
    statuses: list[HookStatus] = []
    for hook in checker.policy.hooks():
        checker.doubts.clear()
        check_hook(checker, hook)
        planned, status = _plan_hook(checker, hook)
        hooks += planned
        statuses.append(replace(status, doubts=tuple(checker.doubts)))
    enforcers = plan_enforcers(checker)
    ids = _lists(checker)
    if checker.report.mistakes:
        raise PolicyErrors(checker.report.mistakes)
    listed = tuple(replace(one, hook=with_lists(one.hook, ids)) for one in hooks)
    return Plan(
        policy=checker.policy,
        hooks=listed,
        enforcers=enforcers,
        statuses=tuple(statuses),
        syscall_ids=ids,
    )


def _plan_hook(checker: Checker, hook: Hook) -> tuple[tuple[PlannedHook, ...], HookStatus]:
    if isinstance(hook, Kprobe):
        return plan_function(checker, hook)
    if isinstance(hook, Tracepoint):
        return plan_tracepoint(checker, hook)
    if isinstance(hook, Uprobe):
        return plan_uprobe(checker, hook)
    if isinstance(hook, Usdt):
        return plan_usdt(checker, hook)
    if isinstance(hook, Loader):
        return plan_loader(checker, hook)
    assert isinstance(hook, Lsm)
    return plan_lsm(checker, hook)


def _lists(checker: Checker) -> dict[str, tuple[int, ...]]:
    """Return the ids of the lists that a filter names."""
    named = {
        value.name
        for hook in checker.policy.hooks()
        for selector in hook.selectors
        for one in selector.args
        for value in one.values
        if isinstance(value, ListReference)
    }
    return {
        one.name: syscall_ids(checker, one, f"spec.lists[{number}]")
        for number, one in enumerate(checker.policy.lists)
        if one.name in named
    }
