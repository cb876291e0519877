"""Policies of the fleet, followed: across lost gateways, as lines or as a table that is redrawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from cli.errors import UnreachableError
from cli.policies.calls import PolicyCalls
from cli.policies.fleet import full_name, node_state
from cli.reconnect import DEFAULT_POLICY, Attempts
from cli.terminal import visible
from tetra.v1.policies_pb2 import FleetPolicy, ListPoliciesRequest


def changes(
    calls: PolicyCalls, request: ListPoliciesRequest, notice: Callable[[str], None]
) -> Iterator[list[FleetPolicy]]:
    """Yield the policies at once and after each change; connect again when a gateway is lost."""
    attempts = Attempts(DEFAULT_POLICY, len(calls.client.options.addresses))
    while True:
        try:
            for answer in calls.stream(request):
                if attempts.answered():
                    notice(f"connected to {calls.client.address} again")
                yield list(answer.policies)
            failure = UnreachableError(f"stream: {calls.client.address}: it ended")
        except UnreachableError as error:
            failure = error
        if attempts.failed():
            notice(f"{failure}; connecting again")
        if attempts.is_given_up(resumable=True):
            raise failure
        calls.client.next_address()
        attempts.wait()


class ChangeLines:
    """Writes a line whenever a policy changes on a node."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], tuple[str, int, str]] = {}

    def lines(self, policies: Sequence[FleetPolicy], now_s: float | None = None) -> list[str]:
        """Return the lines for what has changed since the last call."""
        clock = time.strftime("%H:%M:%S", time.localtime(now_s))
        found = {}
        lines = []
        for policy in policies:
            name = full_name(policy)
            for node in policy.nodes:
                key = policy.policy.domain, name, node.node_name
                found[key] = node_state(node), node.revision, node.error
                if self._known.get(key) != found[key]:
                    lines.append(_line(clock, key, *found[key]))
        for domain, name, node_name in sorted(self._known.keys() - found.keys()):
            lines.append(visible(f"{clock} {domain}:{name} {node_name} deleted"))
        self._known = found
        return lines


def _line(clock: str, key: tuple[str, str, str], state: str, revision: int, error: str) -> str:
    domain, name, node = key
    text = f"{clock} {domain}:{name} {node} {state}"
    if revision:
        text += f" revision {revision}"
    first, *more = error.splitlines() or [""]
    if first:
        text += f": {first}" + (f" (and {len(more)} more lines)" if more else "")
    return visible(text)
