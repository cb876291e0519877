"""``tetra tracingpolicy try``."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from cli.command import Args, Command
from cli.errors import RefusedError, UsageError
from cli.flags import Flag, output_flag
from cli.policies.documents import (
    DOCUMENT,
    Document,
    parsed,
    read_document,
    text_of,
    with_file_name,
    with_mistakes,
)
from cli.policies.flags import node_flags, selector
from cli.server_flags import server_options
from cli.terminal import Fit, Output, notice, terminal_width
from cli.values import DURATION, INTEGER

if TYPE_CHECKING:
    from cli.policies.trial import Trial
    from cli.policies.trying import Draw
    from tetra.v1.policies_pb2 import TryPolicyRequest

_STEP = "failed to try tracing policy"
_SUMMARY_LINES = 60


def run(args: Args) -> int:
    """Try the policy, then print what it has seen."""
    if args.for_ <= 0:
        raise UsageError("--for: must be more than 0", "--for 60s")
    from cli.policies.results import failed
    from cli.policies.trial import Trial
    from cli.policies.trying import run_trial

    document = read_document(args.file)
    policy, _ = parsed(document)
    trial = Trial(policy.name if policy else document.name)
    try:
        with _shown(args) as draw:
            complete = run_trial(server_options(args), _request(args, document), trial, draw)
    except RefusedError as error:
        raise with_mistakes(error, document, _STEP) from None
    for node in trial.update.nodes:
        node.error = with_file_name(node.error, document)
    if trial.update.policy_name:  # else it was interrupted before the first answer
        _print(trial, args)
    how = trial.update.reason or "time is over" if complete else "interrupted"
    notice(f"{how}; the policy is removed")
    nodes = trial.update.nodes
    early = complete and trial.update.remaining.ToNanoseconds() > 0  # a limit, or no node
    return int(early or (bool(nodes) and len(failed(nodes)) == len(nodes)))


def _request(args: Args, document: Document) -> TryPolicyRequest:
    from cli.policies.calls import seconds
    from tetra.v1.policies_pb2 import TryPolicyRequest

    request = TryPolicyRequest(yaml=text_of(document), duration=seconds(args.for_))
    nodes = selector(args)
    if nodes is not None:
        request.nodes.CopyFrom(nodes)
    if args.max_hits is not None:
        request.max_hits = args.max_hits
    if args.max_lost is not None:
        request.max_lost = args.max_lost
    return request


@contextmanager
def _shown(args: Args) -> Iterator[Draw]:
    """Yield what draws the counts on a terminal, and nothing elsewhere."""
    if args.output == "json" or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda trial, left_s: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    fit = Fit(unicode=Output.stdout().unicode)
    # What is drawn disappears: the counts are printed once more, in full, at the end.
    with Live(console=console, auto_refresh=False, transient=True) as screen:

        def draw(trial: Trial, left_s: float | None) -> None:
            lines = trial.lines(left_s, console.height - 2)[: console.height - 2]
            lines += ["", "Ctrl-C ends it"]
            text = Text("\n".join(fit(line, console.width) for line in lines), no_wrap=True)
            with _uninterrupted():
                screen.update(text, refresh=True)

        yield draw


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Raise `KeyboardInterrupt` after the block, not inside it.

    Rich, interrupted between writing and emptying its buffer, would write it once more.
    """
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _print(trial: Trial, args: Args) -> None:
    output = Output.stdout()
    if args.output == "json":
        output.write(json.dumps(trial.as_json()) + "\n")
        return
    width, fit = terminal_width(), Fit(unicode=output.unicode)
    lines = trial.lines(None, _SUMMARY_LINES)
    output.write("".join((fit(line, width) if width else line) + "\n" for line in lines))


COMMAND = Command(
    "try",
    run,
    summary="run a policy in monitor mode for a while and count what it sees",
    text="""Load the policy in FILE in monitor mode on the selected nodes, and count the events that
it would report and the actions that it would take, by process, call and action. The policy is
removed after --for, at Ctrl-C, at a limit, and ten seconds after the connection to this client or
its gateway is lost.
Exit code 1: no node could load it, or a limit ended it.

examples:
  tetra tracingpolicy try policy.yaml --for 60s
  tetra tracingpolicy try policy.yaml --node web-1 --max-hits 10000
  tetra tracingpolicy try policy.yaml --for 5m -o json | jq .processes
""",
    params=[
        click.Argument(["file"], type=DOCUMENT, metavar="FILE"),
        Flag(
            "--for",
            "for_",
            type=DURATION,
            default=60.0,
            help="how long, at most an hour [default: 60s]",
        ),
        output_flag("text", "json", more="; json: the counts at the end"),
        *node_flags("try it on"),
        Flag(
            "--max-hits", type=INTEGER, section="limits", help="stop if a node reports more events"
        ),
        Flag("--max-lost", type=INTEGER, section="limits", help="stop if a node loses more events"),
    ],
)
