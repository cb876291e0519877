"""``tetra tracingpolicy check``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from cli.command import Args, Command
from cli.errors import TetraError
from cli.flags import Flag, colour_flag, output_flag
from cli.policies.documents import (
    DOCUMENT,
    Document,
    parsed,
    read_documents,
    text_of,
)
from cli.policies.flags import node_flags, selector
from cli.server_flags import server_options
from cli.terminal import Output, notice, visible, wants_colour

if TYPE_CHECKING:
    from cli.policies.local_check import Checked

_NO_KERNEL = (
    "only the documents were checked; functions, types and tracepoints of a kernel need a host "
    "with the collector: --node NAME asks one"
)


def run(args: Args) -> int:
    """Print every mistake, and a line for each valid document."""
    output = Output.stdout()
    write = _json_lines if args.output == "json" else _text_writer(args)
    wrong = False
    for checked in _checked(args):
        wrong = wrong or bool(checked.mistakes)
        output.write(write(checked))
        for text in checked.notices:
            notice(f"{checked.document.name}: policy {checked.policy}: {text}")
    return int(wrong)


def _checked(args: Args) -> Iterator[Checked]:
    if selector(args) is not None:
        yield from _checked_on_nodes(args)
        return
    from cli.policies.local_check import check_here, checker

    program = None if args.document_only else checker()
    alone = map(_document_alone, read_documents(args.file))
    if program is not None:
        yield from check_here(program, list(alone))
        return
    yield from alone
    if not args.document_only:
        notice(_NO_KERNEL)


def _checked_on_nodes(args: Args) -> Iterator[Checked]:
    """Ask the selected nodes about each document that has no mistakes of its own."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.policies.local_check import with_more
    from cli.policies.plans import mistakes_of
    from tetra.v1.plans_pb2 import PlanPolicyRequest

    with Client(server_options(args)) as client:
        for document in read_documents(args.file):
            checked = _document_alone(document)
            if not checked.mistakes:
                request = PlanPolicyRequest(yaml=text_of(document), nodes=selector(args))
                plans = PolicyCalls(client).plan(request)
                if not plans:
                    raise TetraError("check: no selected node is alive; tetra nodes lists them")
                for plan in plans:
                    if plan.error:
                        raise TetraError(f"check: node {plan.node_name}: {plan.error}")
                    checked = with_more(checked, mistakes_of(plan, document.name))
            yield checked


def _document_alone(document: Document) -> Checked:
    from cli.policies.local_check import Checked

    policy, mistakes = parsed(document)
    notices = tuple(policy.notices()) if policy is not None and not mistakes else ()
    return Checked(document, policy.name if policy else "", mistakes, notices=notices)


def _text_writer(args: Args) -> Callable[[Checked], str]:
    from cli.policies.mistakes import MistakeText

    write = MistakeText(colour=wants_colour(args.color, sys.stdout), excerpts=sys.stdout.isatty())

    def text(checked: Checked) -> str:
        if checked.mistakes:
            return write(checked.mistakes, checked.document.text)
        hooks = f": {checked.hooks}" if checked.hooks else ""
        return visible(f"{checked.document.name}: policy {checked.policy}{hooks}") + "\n"

    return text


def _json_lines(checked: Checked) -> str:
    return "".join(
        json.dumps(
            {
                "file": mistake.file,
                "line": mistake.line,
                "column": mistake.column,
                "message": mistake.message,
                "allowed": mistake.allowed,
            }
        )
        + "\n"
        for mistake in checked.mistakes
    )


COMMAND = Command(
    "check",
    run,
    summary="find every mistake in policy documents, without loading them",
    text="""Print every mistake in the documents with its line and column, and what is allowed
instead. A folder stands for the .yaml files in it, - for standard input. Needs no server and no
privileges. On a host with the collector, its kernel's functions, argument types and tracepoints are
checked too, and for each valid document the mechanisms of its hooks are printed. With --node,
--label or --except-node, these nodes of a gateway check against their kernels.
Exit code 0: no mistakes. 1: some.

examples:
  tetra tracingpolicy check policy.yaml
  tetra tracingpolicy check policies/ -o json | jq -r .message
  tetra tracingpolicy check --document-only - < policy.yaml
  tetra tracingpolicy check policy.yaml --node 'web-*'
""",
    params=[
        click.Argument(["file"], type=DOCUMENT, nargs=-1, required=True, metavar="FILE..."),
        output_flag("text", "json", more="; json: one line for each mistake"),
        Flag(
            "--document-only", is_flag=True, help="check only the documents, not against a kernel"
        ),
        colour_flag(),
        *node_flags("check it on", "this host"),
    ],
)
