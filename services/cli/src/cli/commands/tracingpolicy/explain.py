"""``tetra tracingpolicy explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.command import Args, Command
from cli.errors import RefusedError, TetraError
from cli.flags import Flag, output_flag
from cli.policies.documents import (
    DOCUMENT,
    Document,
    parsed,
    read_document,
    text_of,
    with_mistakes,
)
from cli.policies.flags import literal, node_flags, selector
from cli.server_flags import server_options
from cli.terminal import Output, notice

if TYPE_CHECKING:
    from cli.policies.calls import PolicyCalls
    from tetra.v1.plans_pb2 import NodePlan, PlanPolicyRequest

_STEP = "failed to explain tracing policy"


def run(args: Args) -> int:
    """Print the plan of every node, or the C text of one."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.policies.plans import unloadable
    from tetra.v1.plans_pb2 import PlanPolicyRequest

    document = read_document(args.file)
    request = PlanPolicyRequest(yaml=text_of(document), nodes=selector(args))
    with Client(server_options(args)) as client:
        calls = PolicyCalls(client)
        try:
            plans = calls.plan(request)
            if args.source:
                return _print_source(calls, request, plans)
        except RefusedError as error:
            raise with_mistakes(error, document, _STEP) from None
    if not plans:
        raise TetraError(f"{_STEP}: no selected node is alive; tetra nodes lists them")
    _print(plans, document, args)
    return int(any(map(unloadable, plans)))


def _print(plans: list[NodePlan], document: Document, args: Args) -> None:
    output = Output.stdout()
    if args.output == "json":
        from eventjson.encoder import JsonEncoder

        encode = JsonEncoder(extensions=True).encode
        output.write("".join(encode(plan) + "\n" for plan in plans))
        return
    from cli.policies.plans import explanation

    policy, _ = parsed(document)
    lines = explanation(plans, policy.name if policy else "the policy", document.name)
    output.write("".join(f"{line}\n" for line in lines))


def _print_source(calls: PolicyCalls, request: PlanPolicyRequest, plans: list[NodePlan]) -> int:
    """Print the C text on the first node that can load the policy."""
    from cli.policies.plans import unloadable
    from tetra.v1.policies_pb2 import NodeSelector

    chosen = next((plan.node_name for plan in plans if not unloadable(plan)), "")
    if not chosen:
        raise TetraError(
            f"{_STEP}: no selected node can load it; run it without --source for the reasons"
        )
    request.nodes.CopyFrom(NodeSelector(names=[literal(chosen)]))
    request.with_source = True
    found = calls.plan(request)
    notice(f"as node {chosen} compiles it")
    Output.stdout(exact=True).write("".join(plan.source for plan in found))
    return 0


COMMAND = Command(
    "explain",
    run,
    summary="show how nodes would attach a policy, and what that costs",
    text="""Show how the selected nodes would attach the policy in FILE, without loading it: for
each hook the functions, the mechanism, why no better one works, and what a call costs that the
policy filters out. Nodes with the same plan are shown together; for a node that cannot load it, the
reason is shown. --source prints the C text that one node would compile.
Exit code 1: a node cannot load it.

examples:
  tetra tracingpolicy explain policy.yaml
  tetra tracingpolicy explain policy.yaml --node web-1 --source | less
""",
    params=[
        click.Argument(["file"], type=DOCUMENT, metavar="FILE"),
        Flag("--source", is_flag=True, help="print the C text that a node would compile"),
        output_flag("text", "json", more="; json: one line for each node"),
        *node_flags("plan it on"),
    ],
)
