"""Promoting and aborting a canary."""

from __future__ import annotations

from cli.errors import RefusedError
from cli.policies.calls import PolicyCalls, seconds
from cli.policies.progress import Follower
from cli.policies.results import require_done, summary
from cli.terminal import Output, notice, visible
from tetra.v1.policies_pb2 import AbortPolicyRequest, PolicyRef, PromotePolicyRequest


def promote(calls: PolicyCalls, policy: PolicyRef, node_timeout_s: float, comment: str) -> int:
    """Load a canary on all selected nodes."""
    request = PromotePolicyRequest(policy=policy, timeout=seconds(node_timeout_s), comment=comment)
    step = "failed to promote tracing policy"
    try:
        with Follower(calls.client.options, policy):
            change = calls.promote(request)
        require_done(change, step, "the canary runs as before")
    except RefusedError as error:
        raise error.under(step) from None
    Output.stdout().write(f'tracing policy "{visible(policy.name)}" promoted\n')
    notice(f"policy {policy.name}: {summary(change)}")
    return 0


def abort(calls: PolicyCalls, policy: PolicyRef, comment: str) -> int:
    """End a canary: its nodes load what they had before."""
    step = "failed to abort tracing policy"
    try:
        change = calls.abort(AbortPolicyRequest(policy=policy, comment=comment))
        require_done(change, step)
    except RefusedError as error:
        raise error.under(step) from None
    Output.stdout().write(f'tracing policy "{visible(policy.name)}" aborted\n')
    return 0
