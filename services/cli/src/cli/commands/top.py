"""``tetra top``."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from cli.arguments import add_list, duration_s, server_options
from cli.errors import UsageError
from cli.timestamps import duration_text

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

    from cli.resume import Batch

HELP = "show what starts and ends most, live"
DESCRIPTION = """Show processes started and ended a second, by binary, user, container or node (over
the last ten seconds), the longest running, and what was lost.

keys: b binary   u user   c container   n node   q quit

examples:
  tetra top
  tetra top --by user --node web-1
  tetra top --once --interval 10s        one table after ten seconds, for scripts
"""

_KEYS = "b binary   u user   c container   n node   q quit"
_BY_KEY = {"b": "binary", "u": "user", "c": "container", "n": "node"}
_FRAME_LINES = 7  # two of header, two titles, one blank, keys and a spare one


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--by", choices=tuple(_BY_KEY.values()), default="binary", help="group [binary]"
    )
    add_list(parser, "--node", metavar="NAME", help="events of this node only")
    parser.add_argument(
        "--interval",
        type=duration_s,
        default=1.0,
        metavar="DURATION",
        help="time between two pictures [1s]",
    )
    parser.add_argument("--once", action="store_true", help="print one picture after an interval")


def run(args: argparse.Namespace) -> int:
    """Show or print the tables."""
    if args.interval <= 0:
        raise UsageError("--interval: must be more than 0", "--interval 1s")
    from cli.client import Client
    from cli.commands.tree import lifecycle_request
    from cli.screen import Feed, watch

    request = lifecycle_request(args.node)
    with Client(server_options(args)) as client:
        view = TopView(args.by, str(client.address))
        if not args.once:
            watch(client, request, view, args.interval)
            return 0
        feed = Feed(client, request)
        end_s = time.monotonic() + args.interval
        while time.monotonic() < end_s and feed.drain(view, end_s):
            time.sleep(min(0.05, max(0.0, end_s - time.monotonic())))
    from rich.console import Console

    console = Console(soft_wrap=False)
    console.print(view.draw(console.width if sys.stdout.isatty() else 80, 50))
    return 0


class TopView:
    """The tables of `TopModel`."""

    def __init__(self, group: str, address: str) -> None:
        from cli.top_model import TopModel

        self.model = TopModel()
        self._group = group
        self._address = address
        self._said = ""

    def take(self, batch: Batch) -> None:
        """Count a batch."""
        self.model.take(batch, time.time())

    def say(self, text: str) -> None:
        """Show a notice instead of the keys."""
        self._said = text

    def press(self, key: str) -> None:
        """Choose a group."""
        self._group = _BY_KEY.get(key, self._group)

    def draw(self, width: int, height: int) -> RenderableType:
        """Return header, rates, longest running and keys."""
        return self.picture(width, height, time.time())

    def picture(self, width: int, height: int, now_s: float) -> Group:
        """Return what `draw` does, for a given time."""
        from rich.console import Group
        from rich.text import Text

        model = self.model
        rows = model.rows(self._group, now_s)
        starts = sum(row.starts_per_s for row in rows)
        ends = sum(row.ends_per_s for row in rows)
        clock = time.strftime("%H:%M:%S", time.localtime(now_s))
        head = f"tetra top   {self._address}   nodes {len(model.nodes)}   {clock}"
        lost = f"lost {model.lost}" + (f", gaps {model.gaps}" if model.gaps else "")
        room = max(4, height - _FRAME_LINES)
        upper = room // 2
        return Group(
            Text(head.ljust(width)[:width], style="reverse"),
            Text(
                f"starts {starts:.1f}/s   ends {ends:.1f}/s   running {len(model.running)}   {lost}"
            ),
            self._rates(width, [*rows[:upper]]),
            Text(),
            self._longest(width, room - min(upper, len(rows)), now_s),
            Text((self._said or _KEYS).ljust(width)[:width], style="reverse"),
        )

    def _rates(self, width: int, rows: list) -> Table:  # type: ignore[type-arg]  # Row, lazily imported
        table = _table(width)
        table.add_column(self._group.upper(), ratio=1, no_wrap=True, overflow="ellipsis")
        for title in ("STARTS/S", "ENDS/S", "STARTED"):
            table.add_column(title, justify="right", width=9)
        for row in rows:
            table.add_row(
                _text(row.name), f"{row.starts_per_s:.1f}", f"{row.ends_per_s:.1f}", str(row.total)
            )
        return table

    def _longest(self, width: int, count: int, now_s: float) -> Table:
        table = _table(width)
        table.add_column("PID", justify="right", width=8)
        table.add_column("USER", width=10, no_wrap=True, overflow="ellipsis")
        table.add_column("RUNNING", justify="right", width=8)
        table.add_column("LONGEST RUNNING", ratio=1, no_wrap=True, overflow="ellipsis")
        several = len(self.model.nodes) > 1
        for process in self.model.longest(count):
            command = f"{process.command} @{process.node}" if several else process.command
            ran = duration_text(now_s - process.start_s)
            table.add_row(str(process.pid), _text(process.user), ran, _text(command))
        return table


def _table(width: int) -> Table:
    from rich.table import Table

    return Table(box=None, width=width, pad_edge=False, header_style="bold")


def _text(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text)  # never markup: names are the processes' own
