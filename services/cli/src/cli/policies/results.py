"""The result of a change, as the commands report it: nodes, reasons, what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cli.errors import DeniedError, RefusedError
from cli.terminal import notice
from cli.words import counted
from tetra.v1.policies_pb2 import NodePolicy, PolicyChange
from tetragon.sensors_pb2 import (
    TP_STATE_ENABLED,
    TP_STATE_ERROR,
    TP_STATE_LOAD_ERROR,
    TP_STATE_PARTIALLY_ENABLED,
)

if TYPE_CHECKING:
    from cli.policies.calls import PolicyCalls

_NAMES_SHOWN = 3
_REASON_LINES = 6
_ON = (TP_STATE_ENABLED, TP_STATE_PARTIALLY_ENABLED)
_FAILED = (TP_STATE_LOAD_ERROR, TP_STATE_ERROR)


def require_done(change: PolicyChange | None, step: str, advice: str = "") -> None:
    """Raise `RefusedError` if nodes refused the change; ``advice`` says what to do next.

    The advice is for changes that some nodes could carry out.
    """
    if change is None or not change.error:
        return
    first, *more = change.error.splitlines()
    bad = failed(change.nodes)
    known = [node for node in bad if node.error]
    details = reasons(known) or more
    if known:  # the text names the first of them, too
        first = first.partition(": node ")[0]
    if advice and len(bad) < sum(node.selected and node.alive for node in change.nodes):
        details = [*details, advice]
    raise RefusedError(f"{step}: {first}", details=details)


def failed(nodes: Iterable[NodePolicy]) -> list[NodePolicy]:
    """Return the nodes that could not carry out what was wanted."""
    return [node for node in nodes if node.error or node.state in _FAILED]


def reasons(nodes: Iterable[NodePolicy]) -> list[str]:
    """Return ``node a, b and 3 more: reason`` for each reason, further lines of it indented."""
    by_reason: dict[str, list[str]] = {}
    for node in nodes:
        by_reason.setdefault(node.error or "it failed without a reason", []).append(node.node_name)
    lines = []
    for reason, names in by_reason.items():
        first, *more = reason.splitlines()
        lines.append(f"node {some(names)}: {first}")
        lines += [f"  {line}" for line in more[:_REASON_LINES]]
        if len(more) > _REASON_LINES:
            lines.append(f"  ... and {len(more) - _REASON_LINES} more lines")
    return lines


def some(names: Iterable[str]) -> str:
    """Return ``a, b, c and 7 more``."""
    names = [*names]
    more = len(names) - _NAMES_SHOWN
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def notice_twins(calls: PolicyCalls, change: PolicyChange) -> None:
    """Print a notice where nodes have a policy of this name from their own files, too."""
    from tetra.v1.policies_pb2 import ListPoliciesRequest

    ref = change.policy
    here = {node.node_name for node in change.nodes if node.alive and node.state in _ON}
    if not here:
        return
    try:
        policies = calls.fleet(ListPoliciesRequest(name=ref.name, with_static=True))
    except DeniedError:  # a token that may change policies, and not read
        return
    for other in policies:
        if other.policy.namespace != ref.namespace or other.policy.domain == ref.domain:
            continue
        both = [one.node_name for one in other.nodes if one.alive and one.state in _ON]
        both = sorted(here.intersection(both))
        if both:
            notice(
                f"policy {ref.name}: {some(both)} {'has' if len(both) == 1 else 'have'} it from "
                f"domain {other.policy.domain} too: what both match is reported twice"
            )


def _unknown(change: PolicyChange, wanted: Iterable[str]) -> list[str]:
    names = {node.node_name for node in change.nodes}
    return sorted({name for name in wanted if not set(name) & set("*?[")} - names)


def summary(change: PolicyChange, wanted: Iterable[str] = ()) -> str:
    """Return which nodes a change reached, for a line under its result.

    ``wanted`` are the names that were asked for; those that no node has are reported.
    """
    unknown = _unknown(change, wanted)
    if unknown:
        # A gateway may name the selected nodes alone: none of them is not none at all.
        names = some(sorted(node.node_name for node in change.nodes))
        known = f"known: {names}" if names else "see tetra nodes"
        rest = f"no node is named {some(unknown)} ({known}); it is loaded there when one joins"
        reached = [node for node in change.nodes if node.selected]
        return f"{summary(change)}; {rest}" if reached else f"revision {change.revision}; {rest}"
    selected = [node for node in change.nodes if node.selected]
    if not selected:
        return f"revision {change.revision}; no node that is known is selected: see tetra nodes"
    away = [node.node_name for node in selected if not node.alive]
    bad = failed(node for node in selected if node.alive)
    good = len(selected) - len(away) - len(bad)
    parts = [f"revision {change.revision} on {counted(good, 'node')}"]
    if bad:
        parts.append(f"not on {some(node.node_name for node in bad)}")
    if away:
        verb = "loads" if len(away) == 1 else "load"
        parts.append(f"{some(away)} {verb} it on return")
    return "; ".join(parts)
