"""``tetra tracingpolicy disable``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.policies.configuration import configure
from cli.policies.flags import comment_flag, name_argument, policy_flags


def run(args: Args) -> int:
    """Disable the policy."""
    from tetra.v1.policies_pb2 import ConfigurePolicyRequest

    configure(args, args.name, ConfigurePolicyRequest(enable=False), "disable", "disabled")
    return 0


COMMAND = Command(
    "disable",
    run,
    summary="unload a policy and keep its document",
    text="""Unload a policy everywhere and keep its document, for enable.

examples:
  tetra tracingpolicy disable passwd-opened
""",
    params=[name_argument(), *policy_flags(), comment_flag()],
)
