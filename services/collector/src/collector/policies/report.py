"""The policies of a node as ListTracingPolicies shows them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from collector.policies.entry import STATIC, Entry, State, mechanisms
from collector.policies.manager import PolicyManager
from collector.policies.plan import HookState, HookStatus
from collector.policies.statistics import SelectorCounters
from tetra.v1.policy_pb2 import PolicyDetails
from tetragon.sensors_pb2 import (
    STATUS_CALL_NOT_FOUND,
    STATUS_DIGEST_REJECTED,
    STATUS_LOADED,
    STATUS_PARTIAL_CALL_NOT_FOUND,
    TP_MODE_ENFORCE,
    TP_MODE_MONITOR,
    TP_MODE_MONITOR_ONLY,
    TP_MODE_UNKNOWN,
    TracingPolicyActionCounters,
    TracingPolicyMode,
    TracingPolicySelectorActionCounters,
    TracingPolicyState,
    TracingPolicyStats,
    TracingPolicyStatus,
)
from tetragon.sensors_pb2 import HookStatus as HookStatusMessage
from tracingpolicy.actions import ACTIONS
from tracingpolicy.model import (
    Fentry,
    Hook,
    HookKind,
    Kprobe,
    Loader,
    Lsm,
    Tracepoint,
    Uprobe,
    Usdt,
)
from tracingpolicy.values import Mode

# Names of Tetragon's sensors, in its order.
_SENSORS = {
    HookKind.KPROBE: "generic_kprobe",
    HookKind.FENTRY: "generic_fentry",
    HookKind.TRACEPOINT: "generic_tracepoint",
    HookKind.LSM: "generic_lsm",
    HookKind.UPROBE: "generic_uprobe",
    HookKind.USDT: "generic_usdt",
    HookKind.LOADER: "__loader__",
}
HOOK_STATES = {
    HookState.LOADED: STATUS_LOADED,
    HookState.CALL_NOT_FOUND: STATUS_CALL_NOT_FOUND,
    HookState.PARTIAL_CALL_NOT_FOUND: STATUS_PARTIAL_CALL_NOT_FOUND,
    HookState.DIGEST_REJECTED: STATUS_DIGEST_REJECTED,
}
_ACTIVE = (State.ENABLED, State.PARTIALLY_ENABLED)


def statuses(manager: PolicyManager, node_name: str, domain: str = "") -> list[TracingPolicyStatus]:
    """Return every policy of ``domain``, or of all where empty; then files that hold none."""
    refused = dict(manager.refused)
    found = [
        _status(entry, refused.pop(entry.file, entry.error), node_name)
        for entry in manager.entries
        if not domain or entry.identity.domain == domain
    ]
    if domain in ("", STATIC):
        found += [
            TracingPolicyStatus(
                name=_shown(Path(file).name),
                domain=STATIC,
                state=TracingPolicyState.TP_STATE_LOAD_ERROR,
                error=error,
                details=PolicyDetails(node_name=node_name, file=_shown(file)),
            )
            for file, error in refused.items()
        ]
    return found


def _shown(file: str) -> str:
    """Return a file's name as text: a name on disk is bytes, and may not be UTF-8."""
    return os.fsencode(file).decode(errors="replace")


def _status(entry: Entry, error: str, node_name: str) -> TracingPolicyStatus:
    counters, installation = entry.counters(), entry.installation
    active = entry.state in _ACTIVE
    status = TracingPolicyStatus(
        id=entry.number,
        name=entry.identity.name,
        namespace=entry.identity.namespace,
        domain=entry.identity.domain,
        sensors=_sensors(entry),
        enabled=active,
        error=error,
        state=TracingPolicyState.ValueType(entry.state.value),
        kernel_memory_bytes=counters.memory_bytes if installation else 0,
        mode=mode(entry) if active else TP_MODE_UNKNOWN,
        details=PolicyDetails(
            node_name=node_name,
            file=_shown(entry.file),
            revision=installation.loaded.revision if installation else 0,
            mechanisms=mechanisms(installation.statuses) if installation else (),
            filtered=counters.filtered,
            rate_limited=counters.total.rate_limited,
            lost={reason: count for reason, count in counters.lost.items() if count},
            missed=counters.missed,
            runs=counters.runs,
            run_time_ns=counters.run_time_ns,
        ),
    )
    if active:
        status.stats.CopyFrom(_stats(entry))
    if installation:
        status.hook_statuses.extend(_hook_statuses(installation.statuses))
    return status


def _sensors(entry: Entry) -> list[str]:
    policy = entry.policy
    if policy is None:
        return []
    kinds = {hook.kind for hook in entry.hooks()}
    found = ["__enforcer__"] if policy.enforcers else []
    return found + [name for kind, name in _SENSORS.items() if kind in kinds]


def mode(entry: Entry) -> TracingPolicyMode.ValueType:
    """Return the mode; monitor only: a policy without actions that act can do nothing else."""
    if entry.policy is None or not _acts(entry.hooks()):
        return TP_MODE_MONITOR_ONLY
    return TP_MODE_MONITOR if entry.mode is Mode.MONITOR else TP_MODE_ENFORCE


def _acts(hooks: Iterable[Hook]) -> bool:
    return any(
        ACTIONS[action.kind].enforces
        for hook in hooks
        for selector in hook.selectors
        for action in (*selector.actions, *selector.return_actions)
    )


def _stats(entry: Entry) -> TracingPolicyStats:
    counters = entry.counters()
    stats = TracingPolicyStats(action_counters=_actions(counters.total))
    hooks = entry.hooks()
    for (hook, selector), counted in sorted(counters.selectors.items()):
        if hook >= len(hooks) or counted == SelectorCounters(rate_limited=counted.rate_limited):
            continue
        one = TracingPolicySelectorActionCounters(
            hook=describe(hooks[hook]), action_counters=_actions(counted)
        )
        one.hook_index.value, one.selector_index.value = hooks[hook].index, selector
        if selector < len(hooks[hook].selectors):
            one.selector_label = hooks[hook].selectors[selector].label
        stats.selector_action_counters.append(one)
    return stats


def _actions(counted: SelectorCounters) -> TracingPolicyActionCounters:
    return TracingPolicyActionCounters(
        post=counted.posted,
        nopost=counted.not_posted,
        signal=counted.signal,
        monitor_signal=counted.monitor_signal,
        override=counted.override,
        monitor_override=counted.monitor_override,
        notify_enforcer=counted.notify,
        monitor_notify_enforcer=counted.monitor_notify,
        set=counted.set,
        monitor_set=counted.monitor_set,
    )


def _hook_statuses(found: Iterable[HookStatus]) -> Iterator[HookStatusMessage]:
    """Tetragon has them for functions and uprobes."""
    for status in found:
        hook = status.hook
        if isinstance(hook, Kprobe):
            section, description = HookKind.KPROBE.value, hook.call
        elif isinstance(hook, Uprobe):
            section, description = HookKind.UPROBE.value, hook.path
        else:
            continue
        yield HookStatusMessage(
            section=section,
            hook_idx=hook.index,
            hook_description=description,
            state=HOOK_STATES[status.state],
        )


def describe(hook: Hook) -> str:
    """Return a hook of a document as statistics and metrics of selectors name it."""
    match hook:
        case Fentry():
            return f"fentry:{hook.call}"
        case Kprobe():
            return f"kprobe:{hook.call}"
        case Tracepoint():
            return f"tracepoint:{hook.subsystem}/{hook.event}"
        case Lsm():
            return f"lsm:{hook.hook}"
        case Loader():
            return "loader"
        case Usdt():
            return f"usdt:{hook.path}:{hook.provider}/{hook.name}"
        case Uprobe(symbols=symbols) if symbols:
            return f"uprobe:{hook.path}:" + ",".join(symbol.text for symbol in symbols)
        case Uprobe(offsets=offsets) if offsets:
            return f"uprobe:{hook.path}:offsets=" + ",".join(map(str, offsets))
        case Uprobe():
            return f"uprobe:{hook.path}:addrs=" + ",".join(map(str, hook.addresses))
    raise TypeError(type(hook))
