"""``tetra tracingpolicy add``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.command import Args, Command
from cli.errors import RefusedError, UsageError
from cli.flags import Flag
from cli.policies.documents import (
    DOCUMENT,
    Document,
    parsed,
    print_notices,
    read_document,
    text_of,
    with_file_name,
    with_mistakes,
)
from cli.policies.flags import (
    comment_flag,
    domain_flag,
    mode_flag,
    mode_number,
    node_flags,
    rollout_flags,
    selector,
)
from cli.server_flags import server_options
from cli.terminal import Output, notice, visible
from cli.values import INTEGER, Value

if TYPE_CHECKING:
    from cli.policies.calls import PolicyCalls
    from tetra.v1.policies_pb2 import AddPolicyRequest, PolicyChange, PolicyRef

_STEP = "failed to add tracing policy"
_ELSEWHERE = "to load it where it can be loaded: --wherever-it-loads; to choose nodes: --node"


def _percent(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        raise UsageError(f"{text!r} is not a percentage") from None
    if not 0 < value <= 100:
        raise UsageError(f"{text!r} is not above 0 % and up to 100 %")
    return value


_PERCENT = Value("PERCENT", _percent, example="5%")


def run(args: Args) -> int:
    """Add the policy, or end its canary."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.policies.results import notice_twins

    document = read_document(args.file)
    _check_flags(args)
    with Client(server_options(args)) as client:
        calls = PolicyCalls(client)
        if args.promote or args.abort:
            return _end_canary(calls, args, document)
        change = _add(calls, args, document)
        name = "-" if args.file == "-" else visible(args.file)
        Output.stdout().write(f'tracing policy "{name}" added\n')
        print_notices(document)
        if change is not None:
            _report(change, args, document)
            notice_twins(calls, change)
    return 0


def _check_flags(args: Args) -> None:
    if args.canary is None and (args.max_hits is not None or args.max_lost is not None):
        raise UsageError("--max-hits, --max-lost: limits of a canary", "--canary 5% --max-hits 9")
    if args.promote and args.abort:
        raise UsageError("--promote and --abort: choose one", "--promote")


def _add(calls: PolicyCalls, args: Args, document: Document) -> PolicyChange | None:
    from cli.policies.progress import Follower
    from cli.policies.results import require_done

    request = _request(args, document)
    try:
        with Follower(calls.client.options, _policy(document, args.domain)):
            change = calls.add(request)
        require_done(change, _STEP, "" if args.wherever_it_loads else _ELSEWHERE)
    except RefusedError as error:
        raise _explained(error, document) from None
    return change


def _request(args: Args, document: Document) -> AddPolicyRequest:
    from cli.policies.calls import seconds
    from tetra.v1.policies_pb2 import ROLLOUT_WHEREVER, AddPolicyRequest

    request = AddPolicyRequest(
        yaml=text_of(document),
        domain=args.domain,
        replace=args.replace,
        timeout=seconds(args.node_timeout),
        comment=args.comment,
    )
    nodes = selector(args)
    if nodes is not None:
        request.nodes.CopyFrom(nodes)
    if args.wherever_it_loads:
        request.rollout = ROLLOUT_WHEREVER
    if args.mode:
        request.mode = mode_number(args.mode)
    if args.canary is not None:
        request.canary.percent = args.canary
        if args.max_hits is not None:
            request.canary.max_hits = args.max_hits
        if args.max_lost is not None:
            request.canary.max_lost = args.max_lost
    return request


def _policy(document: Document, domain: str) -> PolicyRef:
    """Return as much of a document's policy as can be read."""
    from tetra.v1.policies_pb2 import PolicyRef

    policy, _ = parsed(document)
    if policy is None:
        return PolicyRef(domain=domain or "grpc")
    return PolicyRef(name=policy.name, namespace=policy.namespace, domain=domain or "grpc")


def _explained(error: RefusedError, document: Document) -> RefusedError:
    if error.status == "ALREADY_EXISTS":
        return error.under(_STEP, "to load this document in its place: --replace")
    return with_mistakes(error, document, _STEP)


def _report(change: PolicyChange, args: Args, document: Document) -> None:
    from cli.policies.results import failed, reasons, summary

    notice(f"policy {change.policy.name}: {summary(change, args.node)}")
    for line in reasons(failed(change.nodes)):
        notice(with_file_name(line, document))
    if args.canary is not None:
        notice(
            "this is a canary: tetra tracingpolicy promote "
            f"{change.policy.name} loads it everywhere, abort {change.policy.name} ends it"
        )


def _end_canary(calls: PolicyCalls, args: Args, document: Document) -> int:
    from cli.policies.canary import abort, promote

    policy = _policy(document, args.domain)
    if not policy.name:
        raise UsageError(f"{document.name}: it names no policy", "tetra tracingpolicy promote NAME")
    if args.promote:
        return promote(calls, policy, args.node_timeout, args.comment)
    return abort(calls, policy, args.comment)


COMMAND = Command(
    "add",
    run,
    summary="load a policy on every node that it selects",
    text="""Load the policy in FILE (- is standard input) on every selected node, now and whenever
such a node joins or returns. Every node first loads it switched off. If all succeed, it is switched
on; otherwise it is unloaded everywhere, and the nodes and reasons are printed. With
--wherever-it-loads it runs on the nodes that can load it.

A canary runs on a part of the nodes until it is promoted to all of them or aborted. It is aborted
automatically when a node exceeds a limit.

examples:
  tetra tracingpolicy add policy.yaml
  tetra tracingpolicy add policy.yaml --replace --comment 'ticket 4711'
  tetra tracingpolicy add policy.yaml --node 'web-*' --label zone=a
  tetra tracingpolicy add policy.yaml --canary 5% --max-hits 1000
  tetra tracingpolicy add policy.yaml --promote
""",
    params=[
        click.Argument(["file"], type=DOCUMENT, metavar="FILE"),
        mode_flag("the document's"),
        domain_flag(),
        Flag("--replace", is_flag=True, help="replace the policy of this name, if there is one"),
        comment_flag(),
        *node_flags(),
        *rollout_flags(),
        Flag("--canary", type=_PERCENT, section="canary", help="load it on this part of the nodes"),
        Flag(
            "--max-hits", type=INTEGER, section="canary", help="abort if a node reports more events"
        ),
        Flag(
            "--max-lost", type=INTEGER, section="canary", help="abort if a node loses more events"
        ),
        Flag(
            "--promote",
            is_flag=True,
            section="canary",
            help="load FILE's canary on all selected nodes",
        ),
        Flag("--abort", is_flag=True, section="canary", help="end FILE's canary"),
    ],
)
