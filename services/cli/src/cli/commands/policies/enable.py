"""``tetra policies enable``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.command import Args, Command
from cli.errors import RefusedError
from cli.policies.flags import comment_flag, node_flags, rollout_flags, selector
from cli.policies.ready import (
    names_argument,
    notice_partial_settings,
    of_fleet,
    parameters_set,
    rendered,
    set_flag,
)
from cli.server_flags import server_options
from cli.terminal import Output, notice, visible

if TYPE_CHECKING:
    from tetra.v1.policies_pb2 import AddPolicyRequest

_STEP = "failed to enable policy"


def run(args: Args) -> int:
    """Load the policies, one after the other; every parameter is checked before the first."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.policies.progress import Follower
    from cli.policies.results import notice_twins, require_done, summary
    from tetra.v1.policies_pb2 import PolicyRef

    documents = rendered(args.name, args.set)
    notice_partial_settings(args.name, args.set)
    output = Output.stdout()
    with Client(server_options(args)) as client:
        calls = PolicyCalls(client)
        before = of_fleet(calls)
        for name, text in documents.items():
            policy = PolicyRef(name=name, domain="grpc")
            try:
                with Follower(client.options, policy):
                    change = calls.add(_request(args, text))
                require_done(change, f"{_STEP} {name}")
            except RefusedError as error:
                raise error.under(f"{_STEP} {name}") from None
            output.write(f'policy "{name}" enabled\n')
            for key, value in parameters_set(before.get(name)).items():
                if key not in dict(args.set):
                    notice(f"policy {name}: {key} was {visible(value)}, and is the default again")
            if change is not None:
                notice(f"policy {name}: {summary(change, args.node)}")
                notice_twins(calls, change)
    return 0


def _request(args: Args, text: str) -> AddPolicyRequest:
    from cli.policies.calls import seconds
    from tetra.v1.policies_pb2 import ROLLOUT_WHEREVER, AddPolicyRequest

    request = AddPolicyRequest(
        yaml=text, replace=True, timeout=seconds(args.node_timeout), comment=args.comment
    )
    nodes = selector(args)
    if nodes is not None:
        request.nodes.CopyFrom(nodes)
    if args.wherever_it_loads:
        request.rollout = ROLLOUT_WHEREVER
    return request


COMMAND = Command(
    "enable",
    run,
    summary="load ready-made policies on every node",
    text="""Load ready-made policies on every node, now and whenever a node joins; one that is
enabled already is replaced without a gap. --set changes a parameter: tetra policies
explain NAME lists them, tetra policies shows those that are set. A parameter applies to every
policy on the command line that has it; one that is not given has its default, whatever was set.

examples:
  tetra policies enable files network
  tetra policies enable files --set paths=/etc,/srv --set secrets=/srv/keys
  tetra policies enable network --set loopback=false --node 'web-*'
""",
    params=[names_argument(), set_flag(), *node_flags(), *rollout_flags(), comment_flag()],
)
