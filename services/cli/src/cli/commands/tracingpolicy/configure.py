"""``tetra tracingpolicy configure``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.errors import UsageError
from cli.flags import Flag
from cli.policies.configuration import configure
from cli.policies.flags import (
    comment_flag,
    mode_flag,
    mode_number,
    name_argument,
    node_flags,
    policy_flags,
    rollout_flags,
    selector,
)

_EXAMPLE = "tetra tracingpolicy configure NAME --mode monitor"


def run(args: Args) -> int:
    """Make all changes of the flags in one step."""
    from cli.policies.calls import seconds
    from tetra.v1.policies_pb2 import ROLLOUT_WHEREVER, ConfigurePolicyRequest, NodeSelector

    nodes = selector(args)
    if args.every_node and nodes is not None:
        raise UsageError("--every-node and a selection of nodes: choose one", "--every-node")
    if args.every_node:
        nodes = NodeSelector()
    if args.enable is None and args.mode is None and nodes is None:
        raise UsageError("configure: nothing to change", _EXAMPLE)
    request = ConfigurePolicyRequest(timeout=seconds(args.node_timeout))
    if args.enable is not None:
        request.enable = args.enable
    if args.mode:
        request.mode = mode_number(args.mode)
    if nodes is not None:
        request.nodes.CopyFrom(nodes)
    if args.wherever_it_loads:
        request.rollout = ROLLOUT_WHEREVER
    configure(args, args.name, request, "configure", "configured")
    return 0


COMMAND = Command(
    "configure",
    run,
    summary="change state, mode and nodes of a policy in one step",
    text="""Enable or disable a policy, set its mode and select its nodes in one step, with one
revision in its history. Everything else is unchanged.

examples:
  tetra tracingpolicy configure passwd-opened --node 'web-*'
  tetra tracingpolicy configure passwd-opened --every-node --mode enforce --enable
""",
    params=[
        name_argument(),
        Flag("--enable/--disable", default=None, help="load it, or unload it but keep it"),
        mode_flag("unchanged"),
        *policy_flags(),
        comment_flag(),
        *node_flags(default="unchanged"),
        Flag("--every-node", is_flag=True, section="nodes", help="select every node"),
        *rollout_flags(),
    ],
)
