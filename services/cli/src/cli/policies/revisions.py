"""Revisions of a policy: found by number, as a table, as texts that can be compared."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence

from cli.errors import RefusedError, TetraError
from cli.policies.calls import PolicyCalls
from cli.policies.table import columns, mode_text
from cli.terminal import visible
from cli.timestamps import unix_ns
from tetra.v1.policies_pb2 import (
    GetPolicyHistoryRequest,
    NodeSelector,
    PolicyOrigin,
    PolicyRef,
    PolicySpec,
)
from tetragon.sensors_pb2 import TP_MODE_UNKNOWN

_HEADS = ("REV", "TIME", "ACTION", "STATE", "MODE", "NODES", "WHO", "FROM", "COMMENT")
_GAP = 2


def history(calls: PolicyCalls, policy: PolicyRef, *, with_yaml: bool) -> list[PolicySpec]:
    """Return the revisions, newest first; raise `TetraError` if there is none."""
    request = GetPolicyHistoryRequest(policy=policy, with_yaml=with_yaml)
    try:
        found = calls.history(request)
    except RefusedError as error:
        raise error.under("history") from None
    if not found:
        raise TetraError(f"history: policy {policy.name}: it never existed")
    return found


def find_revision(revisions: Sequence[PolicySpec], number: int | None) -> PolicySpec:
    """Return the revision of that number, without one the current; raise `TetraError`."""
    if number is None:
        return revisions[0]
    for spec in revisions:
        if spec.revision == number:
            return spec
    known = ", ".join(str(spec.revision) for spec in reversed(revisions))
    raise TetraError(f"revision {number}: not kept; kept are {known}")


def history_table(revisions: Sequence[PolicySpec]) -> list[str]:
    """Return a line for each revision."""
    return columns([_HEADS, *map(_row, revisions)], _GAP)


def _row(spec: PolicySpec) -> tuple[str, ...]:
    origin = spec.origin
    return (
        str(spec.revision),
        local_time(unix_ns(origin.time)),
        action_text(origin),
        state_word(spec),
        "-" if spec.mode == TP_MODE_UNKNOWN else mode_text(spec.mode),
        selector_text(spec.nodes),
        visible(who_text(origin)),
        visible(address_text(getattr(origin, "from"))) or "-",
        visible(origin.comment),
    )


def state_word(spec: PolicySpec) -> str:
    """Return what a revision wants: ``enabled``, ``disabled`` or ``deleted``."""
    if spec.deleted:
        return "deleted"
    return "enabled" if spec.enabled else "disabled"


def action_text(origin: PolicyOrigin) -> str:
    """Return ``add``, ``replace``, ``rollback to 3``, ..."""
    word = PolicyOrigin.Action.Name(origin.action).removeprefix("ACTION_").lower().replace("_", " ")
    return f"{word} to {origin.from_revision}" if origin.from_revision else word


def who_text(origin: PolicyOrigin) -> str:
    """Return the name that the client reports, and the token that it presented in parentheses."""
    if origin.claimed and origin.who:
        return f"{origin.claimed} ({origin.who})"
    return origin.claimed or origin.who or "-"


def address_text(peer: str) -> str:
    """Return the address in a peer of gRPC, without its scheme and port."""
    scheme, _, rest = peer.partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return peer
    return rest.rpartition(":")[0].removeprefix("%5B").removesuffix("%5D").strip("[]")


def local_time(time_ns: int) -> str:
    """Return ``2026-11-27 03:10:41`` in local time; ``-`` for no time."""
    if not time_ns:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns / 1e9))


def selector_text(nodes: NodeSelector) -> str:
    """Return the nodes that a selector means in a few words."""
    parts = [*nodes.names, *(f"{key}={value}" for key, value in sorted(nodes.labels.items()))]
    text = ",".join(parts) or "every"
    if nodes.except_names:
        text += f" except {','.join(nodes.except_names)}"
    return visible(text)


def unified_diff(old: str, new: str, old_name: str, new_name: str) -> list[str]:
    """Return the lines of a unified diff; none where the texts are the same."""
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), old_name, new_name, lineterm=""
    )
    return [visible(line) for line in lines]
