"""Policies of the fleet as tables: one line a policy, or one line a node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from cli.policies.progress import progress_text
from cli.policies.results import reasons
from cli.policies.table import bytes_text, columns, mode_text, state_text
from cli.terminal import visible
from cli.words import counted
from tetra.v1.policies_pb2 import FleetPolicy, NodePolicy
from tetragon.sensors_pb2 import (
    TP_MODE_UNKNOWN,
    TP_STATE_DISABLED,
    TP_STATE_ENABLED,
    TP_STATE_ERROR,
    TP_STATE_LOAD_ERROR,
    TP_STATE_PARTIALLY_ENABLED,
    TP_STATE_UNKNOWN,
)

_HEADS = ("POLICY", "DOMAIN", "REV", "STATE", "MODE", "NODES", "FAILED", "AWAY", "HITS", "LOST")
_NODE_HEADS = ("NODE", "STATE", "REV", "MODE", "HITS", "LOST", "MISSED", "MEMORY", "COST", "HOOKS")
_GAP = 2
_FRAME_LINES = 3  # title, heads, the line about nodes that are not shown
_GOOD = (TP_STATE_ENABLED, TP_STATE_DISABLED)
_BAD = (TP_STATE_LOAD_ERROR, TP_STATE_ERROR)


def full_name(policy: FleetPolicy) -> str:
    """Return ``name`` or ``namespace/name``."""
    ref = policy.policy
    return visible(f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name)


def fleet_table(policies: Sequence[FleetPolicy]) -> list[str]:
    """Return a line for each policy; the errors of those that have some follow."""
    lines = columns([_HEADS, *map(_row, policies)], _GAP)
    for policy in policies:
        bad = [node for node in policy.nodes if node.selected and node.error]
        lines += [visible(f"{full_name(policy)}: {line}") for line in reasons(bad)]
    return lines


def _row(policy: FleetPolicy) -> tuple[str, ...]:
    nodes = [node for node in policy.nodes if node.selected or node.revision]
    return (
        full_name(policy),
        visible(policy.policy.domain),
        str(revision(policy)),
        state(policy),
        _mode(policy),
        f"{policy.done}/{policy.selected}",
        str(policy.failed),
        str(policy.away),
        str(sum(node.hits for node in nodes)),
        str(sum(map(_lost, nodes))),
    )


def revision(policy: FleetPolicy) -> int:
    """Return the revision that is wanted: of the candidate, where there is one."""
    chosen = policy.candidate.spec if policy.HasField("candidate") else policy.spec
    return chosen.revision


def state(policy: FleetPolicy) -> str:
    """Return the state of the fleet; ``loading`` or ``canary`` where a change is not finished."""
    if policy.HasField("candidate"):
        return "canary" if policy.candidate.HasField("canary") else "loading"
    if not policy.selected:
        return "away" if policy.away else "waiting"
    return state_text(policy.state)


def _mode(policy: FleetPolicy) -> str:
    modes = {node.mode for node in policy.nodes if node.alive and node.mode != TP_MODE_UNKNOWN}
    if len(modes) > 1:
        return "mixed"
    return mode_text(modes.pop()) if modes else "-"


def node_table(
    policy: FleetPolicy, *, unicode: bool = True, most_lines: int | None = None
) -> list[str]:
    """Return a title with a bar, and a line for each node: those with errors first.

    ``most_lines``: leave out what does not fit, and say how many nodes that are.
    """
    nodes = sorted(policy.nodes, key=_order)
    errors = [visible(line) for line in reasons(node for node in nodes if node.error)]
    progress = progress_text(policy, unicode=unicode)
    title = f"{full_name(policy)}: revision {revision(policy)}, {state(policy)}, {progress}"
    left_out: list[NodePolicy] = []
    if most_lines is not None:
        room = max(1, most_lines - _FRAME_LINES)
        errors = errors[: max(0, room // 2)]
        shown = max(0, room - len(errors))
        nodes, left_out = nodes[:shown], nodes[shown:]
    lines = [title, *columns([_NODE_HEADS, *map(_node_row, nodes)], _GAP)]
    if left_out:
        states = Counter(map(node_state, left_out)).most_common()
        counts = ", ".join(f"{count} {state}" for state, count in states)
        lines.append(f"... and {counted(len(left_out), 'more node')}: {counts}")
    return [*lines, *errors]


def _order(node: NodePolicy) -> tuple[int, str]:
    if node.error or node.state in _BAD:
        rank = 0
    elif not node.alive:
        rank = 2
    else:
        rank = 3 if node.state in _GOOD else 1
    return rank, node.node_name


def _node_row(node: NodePolicy) -> tuple[str, ...]:
    return (
        visible(node.node_name),
        node_state(node),
        str(node.revision or "-"),
        "-" if node.mode == TP_MODE_UNKNOWN else mode_text(node.mode),
        str(node.hits),
        str(_lost(node)),
        str(node.missed),
        bytes_text(node.kernel_memory_bytes),
        f"{node.run_time_ns // node.runs} ns/run" if node.runs else "-",
        _hooks(node),
    )


def node_state(node: NodePolicy) -> str:
    """Return the state on one node: what it is doing, where that is known."""
    if not node.alive:
        return "away"
    if not node.selected and node.state == TP_STATE_UNKNOWN:
        return "not selected"
    if node.prepared and node.state not in _BAD:
        return "ready"
    if node.state == TP_STATE_UNKNOWN:
        return "waiting"
    return state_text(node.state)


def _hooks(node: NodePolicy) -> str:
    """Return how the hooks are attached: ``3 by fentry, 1 by kprobe``."""
    counts: dict[str, int] = {}
    for hook in node.hooks:
        for mechanism in hook.mechanisms:
            counts[mechanism] = counts.get(mechanism, 0) + 1
    text = ", ".join(f"{count} by {visible(name)}" for name, count in counts.items())
    partial = node.state == TP_STATE_PARTIALLY_ENABLED
    return (f"{text} (not all)" if partial else text) or "-"


def _lost(node: NodePolicy) -> int:
    return sum(node.lost.values())


def is_settled(policies: Iterable[FleetPolicy]) -> bool:
    """Return whether every selected node that is alive has done what is wanted, or failed."""
    return all(policy.done + policy.failed >= policy.selected for policy in policies)
