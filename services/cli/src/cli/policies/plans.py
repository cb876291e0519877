"""How the nodes would attach a policy: nodes with the same plan are shown together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cli.policies.costs import REPORTED, cost_text
from cli.policies.results import some
from cli.policies.table import columns
from cli.terminal import visible
from tetra.v1.plans_pb2 import NodePlan, PlannedHook
from tracingpolicy import Mistake

_HEADS = ("HOOK", "ATTACHED TO", "BY", "COST")
_GAP = 2
_TARGETS_SHOWN = 3


def mistakes_of(plan: NodePlan, file: str) -> list[Mistake]:
    """Return the mistakes that a node found in ``file``."""
    return [Mistake(file, one.line, one.column, one.message, one.allowed) for one in plan.mistakes]


def explanation(plans: Sequence[NodePlan], name: str, file: str) -> list[str]:
    """Return the lines that explain a policy: for each group of nodes its hooks or mistakes."""
    lines = []
    for group in _groups(plans):
        first = group[0]
        where = f"{_nodes(group)}, Linux {first.kernel} {first.machine}".rstrip()
        if first.error:
            lines.append(f"{_nodes(group)}: not planned: {first.error}")
        elif first.mistakes:
            lines.append(f"{name} cannot be loaded on {where}:")
            lines += [f"  {mistake}" for mistake in mistakes_of(first, file)]
        else:
            lines.append(f"{name} on {where}:")
            lines += [f"  {line}" for line in _hooks(first.hooks)]
        lines.append("")
    if any(plan.hooks for plan in plans):
        lines += REPORTED
    return [visible(line) for line in lines]


def _groups(plans: Iterable[NodePlan]) -> list[list[NodePlan]]:
    groups: dict[bytes, list[NodePlan]] = {}
    for plan in plans:
        key = NodePlan()
        key.CopyFrom(plan)
        key.node_name = key.source = ""
        groups.setdefault(key.SerializeToString(deterministic=True), []).append(plan)
    return sorted(groups.values(), key=len, reverse=True)


def _nodes(group: Sequence[NodePlan]) -> str:
    return some(plan.node_name for plan in group)


def _hooks(hooks: Iterable[PlannedHook]) -> list[str]:
    rows = [_HEADS]
    notes = []
    for hook in hooks:
        by = " and ".join(one for one in (hook.entry, hook.exit) if one) or "nothing"
        rows.append((hook.hook, _targets(hook), by, cost_text(hook.entry, hook.exit)))
        if hook.note:
            notes += _reasons(hook)
        if hook.missing:
            notes.append(f"{hook.hook}: this kernel lacks {some(hook.missing)}")
    return [*columns(rows, _GAP), *notes]


def _reasons(hook: PlannedHook) -> list[str]:
    """Return why each better mechanism does not work: ``fentry: why; kprobe: why``."""
    if not hook.entry:
        return [f"{hook.hook}: {hook.note}"]
    return [f"{hook.hook}: not by {reason}" for reason in hook.note.split("; ")]


def _targets(hook: PlannedHook) -> str:
    shown = ", ".join(hook.targets[:_TARGETS_SHOWN])
    more = hook.target_count - min(_TARGETS_SHOWN, len(hook.targets))
    return f"{shown} and {more} more" if more > 0 else shown or "-"


def unloadable(plan: NodePlan) -> bool:
    """Return whether the node cannot load the policy, or could not be asked."""
    return bool(plan.mistakes or plan.error)
