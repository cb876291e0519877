"""``tetra tracingpolicy domains``."""

from __future__ import annotations

import json

from cli.command import Args, Command
from cli.flags import output_flag
from cli.server_flags import server_options
from cli.terminal import visible


def run(args: Args) -> int:
    """Print the domains."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls

    with Client(server_options(args)) as client:
        domains = [*PolicyCalls(client).domains().domains]
    if args.output == "json":
        print(json.dumps({"domains": domains}, separators=(",", ":")))
    else:
        print(f"[{' '.join(map(visible, domains))}]")
    return 0


COMMAND = Command(
    "domains",
    run,
    summary="list the domains that have policies",
    text="""Print the domains that have policies: static for files of the nodes, grpc for policies
that were added at a gateway.

examples:
  tetra tracingpolicy domains
""",
    params=[output_flag("text", "json")],
)
