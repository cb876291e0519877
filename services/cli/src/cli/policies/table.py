"""The table of ``tetra tracingpolicy list``, byte for byte as Tetragon's own client prints it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cli.terminal import visible
from tetragon.sensors_pb2 import (
    TP_STATE_PARTIALLY_ENABLED,
    HookState,
    HookStatus,
    TracingPolicyMode,
    TracingPolicyState,
    TracingPolicyStatus,
)

_HEADS = (
    "ID", "NAME", "DOMAIN", "STATE", "FILTERID", "NAMESPACE", "SENSORS", "KERNELMEMORY", "MODE",
    "NPOST", "NENFORCE", "NMONITOR",
)  # fmt: skip
_HOOK_HEADS = ("SECTION", "CFGIDX", "DESCRIPTION", "STATUS")
_UNITS = "kMGTPE"


def policy_table(policies: Sequence[TracingPolicyStatus]) -> str:
    """Return a row for each policy; under one that is partially enabled, its hooks."""
    lines = columns([_HEADS, *map(_row, policies)])
    indent = " " * lines[0].index("NAME")
    text = f"{lines[0]}\n"
    for policy, line in zip(policies, lines[1:], strict=True):
        text += f"{line}\n"
        if policy.state == TP_STATE_PARTIALLY_ENABLED and policy.hook_statuses:
            hooks = columns([_HOOK_HEADS, *map(_hook_row, policy.hook_statuses)])
            text += "".join(f"{indent}{hook}\n" for hook in hooks)
    return text


def _row(policy: TracingPolicyStatus) -> tuple[str, ...]:
    counted = policy.stats.action_counters
    enforced = counted.signal + counted.override + counted.notify_enforcer + counted.set
    monitored = (
        counted.monitor_signal
        + counted.monitor_override
        + counted.monitor_notify_enforcer
        + counted.monitor_set
    )
    return (
        str(policy.id),
        visible(policy.name),
        visible(policy.domain),
        state_text(policy.state),
        str(policy.filter_id),
        visible(policy.namespace) or "(global)",
        visible(",".join(policy.sensors)),
        bytes_text(policy.kernel_memory_bytes),
        mode_text(policy.mode),
        str(counted.post),
        str(enforced),
        str(monitored),
    )


def _hook_row(hook: HookStatus) -> tuple[str, ...]:
    state = _word(HookState, hook.state, "status_")
    return visible(hook.section), str(hook.hook_idx), visible(hook.hook_description), state


def state_text(state: TracingPolicyState.ValueType) -> str:
    """Return ``enabled``, ``load_error``, ..."""
    return _word(TracingPolicyState, state, "tp_state_")


def mode_text(mode: TracingPolicyMode.ValueType) -> str:
    """Return ``enforce``, ``monitor``, ``monitor_only`` or ``unknown``."""
    return _word(TracingPolicyMode, mode, "tp_mode_")


def _word(enum: type, number: int, prefix: str) -> str:
    names: dict[int, str] = {value: name for name, value in enum.items()}  # type: ignore[attr-defined] # enum wrappers have items()
    return names.get(number, str(number)).lower().removeprefix(prefix)


def bytes_text(count: int) -> str:
    """Return ``2.40 MB``, in powers of 1000; below that ``999 B``."""
    if count < 1000:
        return f"{count} B"
    value, unit = float(count), -1
    while count >= 1000:
        count //= 1000
        value /= 1000
        unit += 1
    return f"{value:.2f} {_UNITS[unit]}B"


def columns(rows: Iterable[Sequence[str]], gap: int = 3) -> list[str]:
    """Return lines with columns aligned on the left; the last has no blanks behind it."""
    rows = list(rows)
    widths = [max(map(len, column)) + gap for column in zip(*rows, strict=True)]
    widths[-1] = 0
    return ["".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows]
