"""``tetra tracingpolicy delete``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.errors import RefusedError
from cli.policies.flags import comment_flag, names_argument, policy_flags, reference
from cli.server_flags import server_options
from cli.terminal import Output, visible

_STEP = "failed to delete tracing policy"


def run(args: Args) -> int:
    """Delete the policies, one after the other."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.policies.results import require_done
    from tetra.v1.policies_pb2 import DeletePolicyRequest

    output = Output.stdout()
    with Client(server_options(args)) as client:
        for name in args.name:
            request = DeletePolicyRequest(policy=reference(args, name), comment=args.comment)
            try:
                require_done(PolicyCalls(client).delete(request), _STEP)
            except RefusedError as error:
                raise error.under(_STEP) from None
            output.write(f'tracing policy "{visible(name)}" deleted\n')
    return 0


COMMAND = Command(
    "delete",
    run,
    summary="unload policies from every node",
    text="""Unload policies everywhere. Their history is kept: rollback restores them.

examples:
  tetra tracingpolicy delete passwd-opened
  tetra tracingpolicy delete passwd-opened shadow-opened --comment 'ticket 4711'
""",
    params=[names_argument(), *policy_flags(), comment_flag()],
)
