"""``tetra tree``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from cli.command import Args, Command
from cli.flags import Flag, colour_flag, repeated
from cli.node_names import NODES
from cli.server_flags import server_options
from cli.terminal import Fit, Output, notice, terminal_width, visible, wants_colour
from cli.values import DURATION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType
    from rich.text import Text

    from cli.process_tree import Entry
    from cli.resume import Batch
    from tetra.v1.stream_pb2 import StreamEventsRequest

    Rows = list[tuple[Entry, tuple[bool, ...]]]

_KEYS = "q quit   ↑↓ PgUp PgDn g G move   e ended   t kernel threads   p pause"
_INTERVAL_S = 0.25
_KEPT_ENDED = 5_000  # at most, within the time of --keep


def run(args: Args) -> int:
    """Show or print the tree."""
    from cli.client import Client

    output = Output.stdout()
    request = lifecycle_request(args.node)
    if not args.once and sys.stdout.isatty():
        from cli.screen import watch

        with Client(server_options(args)) as client:
            view = TreeView(args.keep, str(client.address), unicode=output.unicode)
            watch(client, request, view, _INTERVAL_S)
        return 0
    from cli.renderers.tree import TreeRenderer

    renderer = TreeRenderer(
        colour=wants_colour(args.color, sys.stdout),
        unicode=output.unicode,
        width=terminal_width(),
    )
    request.no_follow = True
    with Client(server_options(args), notice=notice) as client:
        for batch in client.stream(request):
            renderer.render(batch.events)
    output.write(renderer.finish())
    return 0


def lifecycle_request(nodes: list[str]) -> StreamEventsRequest:
    """Return a request for the running processes, and for execs and exits from now on."""
    from tetra.v1.stream_pb2 import StreamEventsRequest
    from tetragon.events_pb2 import PROCESS_EXEC, PROCESS_EXIT, Filter

    return StreamEventsRequest(
        allow_list=[Filter(event_set=[PROCESS_EXEC, PROCESS_EXIT])], nodes=nodes, snapshot=True
    )


class TreeView:
    """The visible part of the tree."""

    def __init__(self, keep_s: float, address: str, *, unicode: bool = True) -> None:
        from cli.process_tree import Branches, ProcessTree

        self._tree = ProcessTree(keeps_ended=_KEPT_ENDED)
        self._keep_s = keep_s
        self._address = address
        self._branches = Branches.of(unicode=unicode)
        self._keys = _KEYS if unicode else _KEYS.replace("↑↓", "arrows")
        self._fit = Fit(unicode=unicode)
        self._top = 0
        self._page = 1
        self._show_ended = True
        self._show_kernel = False
        self._paused: list[Batch] | None = None

    def take(self, batch: Batch) -> None:
        """Add a batch; while paused, keep it for later."""
        if self._paused is not None:
            self._paused.append(batch)
            return
        for event in batch.events:
            self._tree.add(event)

    def press(self, key: str) -> None:
        """Move, pause, show or hide ended processes and kernel threads."""
        moves = {"up": -1, "down": 1, "page up": -self._page, "page down": self._page}
        if key in moves:
            self._top += moves[key]
        elif key == "home":
            self._top = 0
        elif key == "end":
            self._top = sys.maxsize
        elif key == "e":
            self._show_ended = not self._show_ended
        elif key == "t":
            self._show_kernel = not self._show_kernel
        elif key == "p":
            waiting, self._paused = self._paused, [] if self._paused is None else None
            for batch in waiting or ():
                self.take(batch)

    def draw(self, width: int, height: int, notice: str) -> RenderableType:
        """Return header, the visible part of the tree, and the keys or a notice."""
        return self.picture(width, height, time.time(), notice)

    def picture(self, width: int, height: int, now_s: float, notice: str = "") -> Text:
        """Return the screen at a given time."""
        from rich.text import Text

        if self._paused is None:
            self._tree.forget_ended(now_s - self._keep_s if self._show_ended else None)
        rows = list(self._tree.walk(lambda entry: self._show_kernel or not entry.kernel))
        self._page = max(1, height - 2)
        self._top = max(0, min(self._top, len(rows) - self._page))
        shown = rows[self._top : self._top + self._page]
        clock = time.strftime("%H:%M:%S", time.localtime(now_s))
        paused = " paused" if self._paused is not None else ""
        running = sum(entry.end_s is None for entry, _ in rows)
        nodes = self._nodes()
        where = nodes[0] if len(nodes) == 1 else f"{len(nodes)} nodes"
        head = f"tetra tree{paused}   {self._address}   {where}   running {running}   {clock}"
        text = Text(no_wrap=True, overflow="crop")
        text.append(self._fit.padded(head, width), style="reverse")
        for line in self._lines(shown, width, now_s, several=len(nodes) > 1):
            text.append("\n").append_text(line)
        text.append("\n" * (self._page - len(shown) + 1))
        text.append(self._fit.padded(visible(notice) or self._keys, width), style="reverse")
        return text

    def _nodes(self) -> list[str]:
        return sorted({visible(root.node) for root in self._tree.roots})

    def _lines(self, rows: Rows, width: int, now_s: float, *, several: bool) -> Iterator[Text]:
        from rich.cells import cell_len
        from rich.text import Text

        # States are short, except the signal name of a malformed event.
        states = [self._fit(_state(entry, now_s), width // 3) for entry, _ in rows]
        column = max(map(cell_len, states), default=0)
        for (entry, lasts), state in zip(rows, states, strict=True):
            ended = entry.end_s is not None
            where = f"@{visible(entry.node)} " if several and len(lasts) == 1 else ""
            stem = self._fit(where + self._branches.before(lasts), width // 2)
            left = width - cell_len(stem)
            room = left - column - 2
            line = self._fit(entry.text, max(room, 1))
            text = Text()
            text.append(stem, style="dim")
            text.append(line, style="dim" if ended else "")
            text.append(" " * max(1, left - cell_len(line) - cell_len(state)))
            text.append(state, style="yellow" if ended else "dim")
            yield text


def _state(entry: Entry, now_s: float) -> str:
    if entry.end_s is None:
        return entry.ran(now_s)
    return entry.state() if entry.how else f"ended, {entry.ran()}".removesuffix(", ")


COMMAND = Command(
    "tree",
    run,
    summary="show each process under its parent, live",
    text="""Show every process under its parent, live. Ended processes stay for a while, with their
exit status and run time. If stdout is not a terminal, or with --once, the current tree is printed
once.

keys: arrows, page up and down, g, G: move   e: ended processes   t: kernel threads
      p: pause   q: quit

examples:
  tetra tree
  tetra tree --node web-1
  tetra tree --once > tree.txt
""",
    params=[
        repeated("--node", type=NODES, help="only processes of this node"),
        Flag("--once", is_flag=True, help="print the current tree and stop"),
        colour_flag(),
        Flag(
            "--keep",
            type=DURATION,
            default=10.0,
            help="how long ended processes stay [default: 10s]",
        ),
    ],
)
