"""Flags that commands about policies share, and the messages that they become."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from cli.command import Args
from cli.errors import UsageError
from cli.flags import Flag, repeated
from cli.node_names import NODES
from cli.policies.names import DOMAIN, POLICY
from cli.values import DURATION, Choice, Value, comma_list

if TYPE_CHECKING:
    from tetra.v1.policies_pb2 import NodeSelector, PolicyRef
    from tetragon.sensors_pb2 import TracingPolicyMode

MODES = ("enforce", "monitor")


def _label(text: str) -> list[tuple[str, str]]:
    pairs = []
    for part in comma_list(text):
        key, equals, value = part.partition("=")
        if not key or not equals:
            raise UsageError(f"{part!r} is not KEY=VALUE")
        pairs.append((key, value))
    return pairs


_LABELS = Value("KEY=VALUE[,...]", _label, example="zone=a,role=web")


def name_argument() -> click.Argument:
    """Return the argument NAME of a policy."""
    return click.Argument(["name"], type=POLICY, metavar="NAME")


def names_argument() -> click.Argument:
    """Return the argument NAME..., at least one."""
    return click.Argument(["name"], type=POLICY, metavar="NAME...", nargs=-1, required=True)


def policy_flags() -> list[Flag]:
    """Return the flags that choose among policies of one name."""
    return [
        Flag(
            "-n",
            "--namespace",
            default="",
            type=Value("NAME", example="shop"),
            help="namespace of the policy [default: none]",
        ),
        domain_flag(),
    ]


def domain_flag(help: str = "domain of the policy [default: grpc]") -> Flag:
    """Return ``--domain``."""
    return Flag("--domain", default="", type=DOMAIN, help=help)


def mode_flag(default: str) -> Flag:
    """Return ``--mode``."""
    return Flag(
        "-m",
        "--mode",
        type=Choice(*MODES),
        help=f"enforce: carry out the policy's actions; monitor: only report them [default: "
        f"{default}]",
    )


def node_flags(what: str = "load it on", default: str = "every node") -> list[Flag]:
    """Return the flags that select nodes."""
    return [
        repeated(
            "--node",
            type=NODES,
            section="nodes",
            help=f"{what} these nodes only; * and ? as in a shell [default: {default}]",
        ),
        repeated(
            "--label",
            type=_LABELS,
            section="nodes",
            help=f"{what} nodes with these labels only (the collector's TETRA_NODE_LABELS)",
        ),
        repeated("--except-node", type=NODES, section="nodes", help="not these nodes"),
    ]


def rollout_flags() -> list[Flag]:
    """Return the flags for how a change reaches the nodes."""
    return [
        Flag(
            "--wherever-it-loads",
            is_flag=True,
            section="nodes",
            help="load it on every node that can, even if others cannot [default: everywhere or "
            "nowhere]",
        ),
        Flag(
            "--node-timeout",
            type=DURATION,
            default=60.0,
            section="nodes",
            help="a node that has not answered after this time has failed [default: 60s]",
        ),
    ]


def comment_flag() -> Flag:
    """Return ``--comment``."""
    return Flag(
        "--comment",
        default="",
        type=Value("TEXT", example="'ticket 4711'"),
        help="why, for history and audit",
    )


def reference(args: Args, name: str) -> PolicyRef:
    """Return the policy that ``name`` and the flags mean."""
    from tetra.v1.policies_pb2 import PolicyRef

    return PolicyRef(name=name, namespace=args.namespace, domain=args.domain)


def selector(args: Args) -> NodeSelector | None:
    """Return the nodes that the flags select; None where no flag was given."""
    from tetra.v1.policies_pb2 import NodeSelector

    if not (args.node or args.label or args.except_node):
        return None
    return NodeSelector(names=args.node, labels=dict(args.label), except_names=args.except_node)


def literal(node: str) -> str:
    """Return a pattern that matches the name of one node alone."""
    return re.sub(r"[*?[]", r"[\g<0>]", node)


def mode_number(word: str) -> TracingPolicyMode.ValueType:
    """Return the mode of a word."""
    from tetragon.sensors_pb2 import TracingPolicyMode

    return TracingPolicyMode.Value(f"TP_MODE_{word.upper()}")
