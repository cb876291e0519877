"""``tetra policies disable``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.errors import RefusedError
from cli.policies.flags import comment_flag
from cli.policies.ready import names_argument
from cli.server_flags import server_options
from cli.terminal import Output

_STEP = "failed to disable policy"
_STATIC = "policies that TETRA_POLICIES of a node names are removed there"


def run(args: Args) -> int:
    """Unload the policies, one after the other."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.policies.results import require_done
    from tetra.v1.policies_pb2 import DeletePolicyRequest, PolicyRef

    output = Output.stdout()
    with Client(server_options(args)) as client:
        for name in args.name:
            request = DeletePolicyRequest(policy=PolicyRef(name=name), comment=args.comment)
            try:
                require_done(PolicyCalls(client).delete(request), f"{_STEP} {name}")
            except RefusedError as error:
                if error.status == "NOT_FOUND":
                    error = RefusedError("it is not enabled", error.status)
                    raise error.under(f"{_STEP} {name}", _STATIC) from None
                raise error.under(f"{_STEP} {name}") from None
            output.write(f'policy "{name}" disabled\n')
    return 0


COMMAND = Command(
    "disable",
    run,
    summary="unload ready-made policies from every node",
    text="""Unload ready-made policies from every node. Their history is kept: tetra tracingpolicy
rollback restores one with its parameters.

examples:
  tetra policies disable network
  tetra policies disable files network --comment 'ticket 4711'
""",
    params=[names_argument(), comment_flag()],
)
