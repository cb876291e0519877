"""``tetra tracingpolicy abort``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.policies.flags import comment_flag, name_argument, policy_flags, reference
from cli.server_flags import server_options


def run(args: Args) -> int:
    """Abort the canary."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.policies.canary import abort

    with Client(server_options(args)) as client:
        return abort(PolicyCalls(client), reference(args, args.name), args.comment)


COMMAND = Command(
    "abort",
    run,
    summary="end a canary",
    text="""End a canary: its nodes load the revision that they had before, or unload the policy.

examples:
  tetra tracingpolicy abort passwd-opened
""",
    params=[name_argument(), *policy_flags(), comment_flag()],
)
