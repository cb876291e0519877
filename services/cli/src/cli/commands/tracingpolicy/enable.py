"""``tetra tracingpolicy enable``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.policies.configuration import configure
from cli.policies.flags import comment_flag, name_argument, policy_flags


def run(args: Args) -> int:
    """Enable the policy."""
    from tetra.v1.policies_pb2 import ConfigurePolicyRequest

    configure(args, args.name, ConfigurePolicyRequest(enable=True), "enable", "enabled")
    return 0


COMMAND = Command(
    "enable",
    run,
    summary="load a disabled policy again",
    text="""Load a policy that is disabled on the nodes that it selects.

examples:
  tetra tracingpolicy enable passwd-opened
""",
    params=[name_argument(), *policy_flags(), comment_flag()],
)
