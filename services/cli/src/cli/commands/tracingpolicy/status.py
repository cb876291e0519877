"""``tetra tracingpolicy status``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click

from cli.command import Args, Command
from cli.errors import TetraError
from cli.flags import Flag, output_flag
from cli.policies.flags import domain_flag
from cli.policies.names import POLICY
from cli.server_flags import server_options
from cli.terminal import Fit, Output, notice, terminal_width

if TYPE_CHECKING:
    from cli.policies.calls import PolicyCalls
    from tetra.v1.policies_pb2 import FleetPolicy, ListPoliciesRequest

_Write = Callable[[list["FleetPolicy"]], None]


def run(args: Args) -> int:
    """Print or follow the state of the policies."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from tetra.v1.policies_pb2 import ListPoliciesRequest

    request = ListPoliciesRequest(domain=args.domain, with_static=True)
    if len(args.name) == 1:
        request.name = args.name[0]
    with Client(server_options(args)) as client:
        calls = PolicyCalls(client)
        if args.watch or args.until_loaded:
            return _watch(calls, request, args)
        found = _named(calls.fleet(request), args)
        _writer(args)(found)
    return 0


def _named(policies: list[FleetPolicy], args: Args) -> list[FleetPolicy]:
    found = [
        policy
        for policy in policies
        if not args.name or any(fnmatchcase(policy.policy.name, name) for name in args.name)
    ]
    if args.name and not found and (args.until_loaded or not args.watch):
        raise TetraError(
            f"status: policy {', '.join(args.name)}: no such policy; tetra tracingpolicy list"
        )
    return found


def _watch(calls: PolicyCalls, request: ListPoliciesRequest, args: Args) -> int:
    from cli.policies.fleet import is_settled
    from cli.policies.watching import changes

    with _shown(args) as (write, show_notice):
        for policies in changes(calls, request, show_notice):
            found = _named(policies, args)
            write(found)
            if args.until_loaded and is_settled(found):
                return int(any(policy.failed for policy in found))
    return 0


@contextmanager
def _shown(args: Args) -> Iterator[tuple[_Write, Callable[[str], None]]]:
    """Yield what writes policies, and what writes notices: lines, or a table that is redrawn."""
    live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if args.output == "json" or not live:
        yield _change_writer(args), notice
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    fit = Fit(unicode=Output.stdout().unicode)
    with Live(console=console, auto_refresh=False) as screen:

        def draw(policies: list[FleetPolicy]) -> None:
            lines = _lines(policies, args, most_lines=console.height - 1)
            shown = "\n".join(fit(line, console.width) for line in lines[: console.height - 1])
            screen.update(Text(shown, no_wrap=True), refresh=True)

        yield draw, lambda text: screen.console.print(f"tetra: {text}")


def _change_writer(args: Args) -> _Write:
    if args.output == "json":
        return _writer(args)
    from cli.policies.watching import ChangeLines

    output, log = Output.stdout(), ChangeLines()
    return lambda policies: output.write("".join(f"{line}\n" for line in log.lines(policies)))


def _writer(args: Args) -> _Write:
    output = Output.stdout()
    if args.output == "json":
        from eventjson.encoder import JsonEncoder

        encode = JsonEncoder(extensions=True).encode
        return lambda policies: output.write("".join(encode(one) + "\n" for one in policies))
    width, fit = terminal_width(), Fit(unicode=output.unicode)

    def write(policies: list[FleetPolicy]) -> None:
        lines = _lines(policies, args)
        output.write("".join((fit(line, width) if width else line) + "\n" for line in lines))

    return write


def _lines(policies: list[FleetPolicy], args: Args, most_lines: int | None = None) -> list[str]:
    from cli.policies.fleet import fleet_table, node_table

    if not args.name:
        return fleet_table(policies) if policies else ["no policies"]
    unicode = Output.stdout().unicode
    if most_lines is not None:
        most_lines //= max(1, len(policies))
    return [
        line
        for policy in policies
        for line in node_table(policy, unicode=unicode, most_lines=most_lines)
    ]


COMMAND = Command(
    "status",
    run,
    summary="show the state of policies on every node",
    text="""Without a name print a line for each policy: its state, how many of the selected nodes
run it, which failed and why. With names (* and ? as in a shell) print a line for each node: state,
revision, counters, memory, how its hooks are attached, and the cost of a run while
kernel.bpf_stats_enabled is on.

--watch follows it: a table that is redrawn on a terminal, elsewhere a line for each change.
--until-loaded ends as soon as every selected node that is alive has loaded it or failed.
Exit code 1: a node failed.

examples:
  tetra tracingpolicy status
  tetra tracingpolicy status passwd-opened --watch
  tetra tracingpolicy status passwd-opened --until-loaded && echo loaded
""",
    params=[
        click.Argument(["name"], type=POLICY, metavar="[NAME...]", nargs=-1),
        Flag("-w", "--watch", is_flag=True, help="follow it until Ctrl-C"),
        Flag("--until-loaded", is_flag=True, help="follow it until it is loaded or has failed"),
        output_flag("text", "json", more="; json: one line for each policy"),
        domain_flag("only policies of this domain [default: all]"),
    ],
)
