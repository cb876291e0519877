"""``tetra policies enable``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.command import Args, Command
from cli.errors import DeniedError, RefusedError
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
    from cli.policies.calls import PolicyCalls
    from tetra.v1.policies_pb2 import AddPolicyRequest, FleetPolicy

_STEP = "failed to enable policy"


def run(args: Args) -> int:
    """Load the policies, one after the other; every parameter is checked before the first."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.policies.progress import Follower
    from cli.policies.results import notice_twins, require_done, summary
    from tetra.v1.policies_pb2 import PolicyRef

    documents = rendered(args.name, args.set)  # mistakes are found before the server is asked
    notice_partial_settings(args.name, args.set)
    given, output = dict(args.set), Output.stdout()
    with Client(server_options(args)) as client:
        calls = PolicyCalls(client)
        before = _before(calls)
        kept = {
            name: {k: v for k, v in parameters_set(before.get(name)).items() if k not in given}
            for name in args.name
        }
        if any(kept.values()):
            documents = rendered(args.name, args.set, kept)
        for name, text in documents.items():
            policy = PolicyRef(name=name, domain="grpc")
            try:
                with Follower(client.options, policy):
                    change = calls.add(
                        _request(args, text, before.get(name) if kept[name] else None)
                    )
                require_done(change, f"{_STEP} {name}")
            except RefusedError as error:
                raise error.under(f"{_STEP} {name}") from None
            as_before = " ".join(visible(f"{key}={value}") for key, value in kept[name].items())
            output.write(f'policy "{name}" enabled{as_before and f", keeps {as_before}"}\n')
            if change is not None:
                notice(f"policy {name}: {summary(change, args.node)}")
                notice_twins(calls, change)
    return 0


def _before(calls: PolicyCalls) -> dict[str, FleetPolicy]:
    """Return the fleet's policies; a token may have the right to change them, and not to read."""
    try:
        return of_fleet(calls)
    except DeniedError as error:
        notice(f"{error}: parameters that --set does not name get their defaults")
        return {}


def _request(args: Args, text: str, before: FleetPolicy | None) -> AddPolicyRequest:
    """``before``: the policy whose parameters ``text`` keeps; nobody may change it meanwhile."""
    from cli.policies.calls import seconds
    from tetra.v1.policies_pb2 import ROLLOUT_WHEREVER, AddPolicyRequest

    request = AddPolicyRequest(
        yaml=text, replace=True, timeout=seconds(args.node_timeout), comment=args.comment
    )
    if before is not None:
        request.expected_revision = before.spec.revision
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
policy on the command line that has it. One that is not given keeps what an earlier enable set;
NAME=default is the way back. disable forgets all.

examples:
  tetra policies enable files network
  tetra policies enable files --set paths=/etc,/srv --set secrets=/srv/keys
  tetra policies enable files --set paths=default
  tetra policies enable network --set loopback=false --node 'web-*'
""",
    params=[names_argument(), set_flag(), *node_flags(), *rollout_flags(), comment_flag()],
)
