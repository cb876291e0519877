"""``tetra tracingpolicy diff``."""

from __future__ import annotations

import sys

import click

from cli.command import Args, Command
from cli.errors import TetraError
from cli.flags import Flag, colour_flag
from cli.policies.documents import DOCUMENT, Document, parsed, read_document
from cli.policies.flags import domain_flag
from cli.server_flags import server_options
from cli.terminal import Output, wants_colour
from cli.values import INTEGER

_DIFFERENT = 3
_COLOURS = {"+": "32", "-": "31", "@": "36"}


def run(args: Args) -> int:
    """Print what differs."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.policies.revisions import find_revision, history, unified_diff
    from tetra.v1.policies_pb2 import PolicyRef

    document = read_document(args.file)
    name, namespace = _identity(document)
    policy = PolicyRef(name=name, namespace=namespace, domain=args.domain)
    with Client(server_options(args)) as client:
        revisions = history(PolicyCalls(client), policy, with_yaml=True)
    spec = find_revision(revisions, args.revision)
    loaded = "" if spec.deleted else spec.yaml
    lines = unified_diff(
        loaded,
        document.text.decode(errors="replace"),
        f"{name} revision {spec.revision}{' (deleted)' if spec.deleted else ''}",
        document.name,
    )
    colour = wants_colour(args.color, sys.stdout)
    Output.stdout().write("".join(f"{_coloured(line, colour)}\n" for line in lines))
    return _DIFFERENT if lines else 0


def _identity(document: Document) -> tuple[str, str]:
    policy, mistakes = parsed(document)
    if policy is None or not policy.name:
        cause = str(mistakes[0]) if mistakes else f"{document.name}: it names no policy"
        raise TetraError(cause)
    return policy.name, policy.namespace


def _coloured(line: str, colour: bool) -> str:
    code = _COLOURS.get(line[:1]) if colour else None
    return f"\x1b[{code}m{line}\x1b[0m" if code else line


COMMAND = Command(
    "diff",
    run,
    summary="compare a file with what is loaded",
    text="""Print a unified diff from the loaded document of the policy in FILE to FILE: what
add --replace would change. Exit code 0: no difference. 3: some.

examples:
  tetra tracingpolicy diff policy.yaml
  tetra tracingpolicy diff policy.yaml --revision 3
""",
    params=[
        click.Argument(["file"], type=DOCUMENT, metavar="FILE"),
        Flag("--revision", type=INTEGER, help="compare with this revision [default: the current]"),
        domain_flag(),
        colour_flag(),
    ],
)
