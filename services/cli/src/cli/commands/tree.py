"""``tetra tree``."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from cli.arguments import add_list, duration_s, server_options
from cli.terminal import Output, notice, wants_colour

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.resume import Batch
    from tetra.v1.stream_pb2 import StreamEventsRequest

HELP = "show the process tree of a node, live"
DESCRIPTION = """Show every process under its parent: those that run already, and what starts and
ends from now on. Ended processes stay for a while, with how they ended and how long they ran.
When the output is no terminal, or with --once, the tree of now is printed.

keys: arrows, page up and down, g, G: move   e: ended ones   p: pause   q: quit

examples:
  tetra tree
  tetra tree --node web-1
  tetra tree --once > tree.txt
"""

_KEYS = "↑↓ PgUp PgDn g G move   e ended   p pause   q quit"
_INTERVAL_S = 0.25


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_list(parser, "--node", metavar="NAME", help="processes of this node only")
    parser.add_argument("--once", action="store_true", help="print the tree of now, and stop")
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="[auto]"
    )
    parser.add_argument(
        "--keep",
        type=duration_s,
        default=10.0,
        metavar="DURATION",
        help="how long ended processes stay [10s]",
    )


def run(args: argparse.Namespace) -> int:
    """Show or print the tree."""
    from cli.client import Client, ResumePolicy

    request = lifecycle_request(args.node)
    if not args.once and sys.stdout.isatty():
        from cli.screen import watch

        with Client(server_options(args)) as client:
            watch(client, request, TreeView(args.keep), _INTERVAL_S)
        return 0
    from cli.renderers.tree import TreeRenderer

    output = Output.stdout()
    renderer = TreeRenderer(colour=wants_colour(args.color, sys.stdout), unicode=output.unicode)
    request.no_follow = True
    with Client(server_options(args), notice=notice) as client:
        for batch in client.stream(request, ResumePolicy()):
            renderer.render(batch.events)
    output.write(renderer.finish())
    return 0


def lifecycle_request(nodes: list[str]) -> StreamEventsRequest:
    """Return a request for the processes of now and for execs and exits from now on."""
    from tetra.v1.stream_pb2 import StreamEventsRequest
    from tetragon.events_pb2 import PROCESS_EXEC, PROCESS_EXIT, Filter

    return StreamEventsRequest(
        allow_list=[Filter(event_set=[PROCESS_EXEC, PROCESS_EXIT])], nodes=nodes, snapshot=True
    )


class TreeView:
    """The tree with a place to look from."""

    def __init__(self, keep_s: float) -> None:
        from cli.process_tree import ProcessTree

        self._tree = ProcessTree()
        self._keep_s = keep_s
        self._top = 0
        self._page = 1
        self._show_ended = True
        self._paused: list[Batch] | None = None
        self._said = ""

    def take(self, batch: Batch) -> None:
        """Take events in, or keep them for later while paused."""
        if self._paused is not None:
            self._paused.append(batch)
            return
        for event in batch.events:
            self._tree.add(event)

    def say(self, text: str) -> None:
        """Show a notice instead of the keys."""
        self._said = text

    def press(self, key: str) -> None:
        """Move, pause, show or hide ended processes."""
        moves = {"up": -1, "down": 1, "page up": -self._page, "page down": self._page}
        if key in moves:
            self._top += moves[key]
        elif key == "home":
            self._top = 0
        elif key == "end":
            self._top = sys.maxsize
        elif key == "e":
            self._show_ended = not self._show_ended
        elif key == "p":
            waiting, self._paused = self._paused, [] if self._paused is None else None
            for batch in waiting or ():
                self.take(batch)

    def draw(self, width: int, height: int) -> RenderableType:
        """Return header, the visible part of the tree, and the keys."""
        from rich.text import Text

        from cli.process_tree import Branches

        now_s = time.time()
        if self._paused is None:
            self._tree.forget_ended(now_s - self._keep_s if self._show_ended else None)
        branches = Branches()
        rows = list(self._tree.walk())
        self._page = max(1, height - 2)
        self._top = max(0, min(self._top, len(rows) - self._page))
        several = len({root.node for root in self._tree.roots}) > 1
        head = f"tetra tree   {self._tree.running} running   {time.strftime('%H:%M:%S')}"
        text = Text(head + ("   paused" if self._paused is not None else ""), style="reverse")
        text.pad_right(max(0, width - len(text)))
        for entry, lasts in rows[self._top : self._top + self._page]:
            stem = branches.before(lasts)
            state = f" ({entry.state(now_s)})"
            where = f"@{entry.node} " if several and len(lasts) == 1 else ""
            room = max(8, width - len(stem) - len(where) - len(state))
            line = entry.text if len(entry.text) <= room else entry.text[: room - 1] + "…"
            text.append("\n")
            text.append(where + stem, style="dim")
            text.append(line, style="" if entry.end_s is None else "dim")
            text.append(state, style="dim" if entry.end_s is None else "yellow")
        text.append("\n" * max(1, self._page - len(rows[self._top :]) + 1))
        text.append((self._said or _KEYS)[:width], style="reverse")
        text.no_wrap, text.overflow = True, "crop"
        return text
