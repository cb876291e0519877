"""``tetra tracingpolicy promote``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.policies.flags import comment_flag, name_argument, policy_flags, reference, rollout_flags
from cli.server_flags import server_options


def run(args: Args) -> int:
    """Promote the canary."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.policies.canary import promote

    with Client(server_options(args)) as client:
        policy = reference(args, args.name)
        return promote(PolicyCalls(client), policy, args.node_timeout, args.comment)


COMMAND = Command(
    "promote",
    run,
    summary="load a canary on all selected nodes",
    text="""Load what runs as a canary on all nodes that the policy selects. If one of them cannot
load it, the canary is unchanged.

examples:
  tetra tracingpolicy promote passwd-opened
""",
    params=[
        name_argument(),
        *policy_flags(),
        comment_flag(),
        *(flag for flag in rollout_flags() if flag.name == "node_timeout"),
    ],
)
