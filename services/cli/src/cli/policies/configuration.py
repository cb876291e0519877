"""Commands that change how a loaded policy runs: one call, one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.command import Args
from cli.errors import RefusedError
from cli.policies.flags import reference
from cli.server_flags import server_options
from cli.terminal import Output, notice, visible

if TYPE_CHECKING:
    from tetra.v1.policies_pb2 import ConfigurePolicyRequest


def configure(args: Args, name: str, request: ConfigurePolicyRequest, verb: str, done: str) -> None:
    """Send ``request`` for the policy; print ``done`` or raise "failed to VERB ...".

    The request's policy and comment come from the flags.
    """
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.policies.progress import Follower
    from cli.policies.results import require_done, summary

    request.policy.CopyFrom(reference(args, name))
    request.comment = args.comment
    step = f"failed to {verb} tracing policy"
    with Client(server_options(args)) as client:
        try:
            with Follower(client.options, request.policy):
                change = PolicyCalls(client).configure(request)
            require_done(change, step)
        except RefusedError as error:
            raise error.under(step) from None
    Output.stdout().write(f'tracing policy "{visible(name)}" {done}\n')
    if change is not None and request.HasField("nodes"):
        notice(f"policy {name}: {summary(change)}")
