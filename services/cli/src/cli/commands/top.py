"""``tetra top``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from cli.command import Args, Command
from cli.errors import UsageError
from cli.flags import Flag, repeated
from cli.node_names import NODES
from cli.server_flags import server_options
from cli.terminal import Fit, Output, terminal_width, visible
from cli.timestamps import duration_text
from cli.values import DURATION, Choice

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from cli.resume import Batch
    from cli.top_model import Row
    from tetra.v1.stream_pb2 import StreamEventsRequest

_KEYS = "q quit   b binary   u user   c container   n node   f file   p peer"
_BY_KEY = {
    "b": "binary", "u": "user", "c": "container", "n": "node", "f": "file", "p": "peer",
}  # fmt: skip
_FRAME_LINES = 6  # two of header, two titles, one blank, keys
_ONCE_LINES = 50
_NUMBER_COLUMNS = 11
_USER_COLUMNS = 10
# Columns that a name keeps on a narrow terminal; numbers and users are left out before it is cut.
_LEAST_NAME_COLUMNS = 12
_LEAST_COLUMNS_WITH_USER = 43
_RATE_TITLES = ("STARTS/S", "ENDS/S", "STARTED")
_ACCESS_TITLES = ("ACCESSES/S", "FAILED/S", "ACCESSES")
_NO_ACCESS = {
    "file": "(no file yet; the ready-made policy files reports them: tetra policies enable files)",
    "peer": "(no peer yet; the ready-made policy network reports them: tetra policies enable "
    "network)",
}


def run(args: Args) -> int:
    """Show or print the tables."""
    if args.interval <= 0:
        raise UsageError("--interval: must be more than 0", "--interval 1s")
    from cli.client import Client
    from cli.screen import Feed, watch

    output = Output.stdout()
    request = _request(args.node)
    with Client(server_options(args)) as client:
        view = TopView(args.by, str(client.address), unicode=output.unicode)
        if not args.once and sys.stdout.isatty():
            watch(client, request, view, args.interval)
            return 0
        feed = Feed(client, request)
        end_s = time.monotonic() + args.interval
        while time.monotonic() < end_s and feed.drain(view, end_s):
            time.sleep(min(0.05, max(0.0, end_s - time.monotonic())))
    picture = view.picture(terminal_width() or 80, _ONCE_LINES, time.time())
    # Keys, and the blank lines before them, are for a screen only.
    lines = [line.rstrip() for line in picture.plain.splitlines()[:-1]]
    output.write("\n".join(lines).rstrip("\n") + "\n")
    return 0


def _request(nodes: list[str]) -> StreamEventsRequest:
    """Return a request for processes and for the events of ready-made policies."""
    from cli.commands.tree import lifecycle_request
    from readymade import NAMES
    from tetragon.events_pb2 import PROCESS_KPROBE, PROCESS_TRACEPOINT, Filter

    request = lifecycle_request(nodes)
    request.allow_list.append(
        Filter(event_set=[PROCESS_KPROBE, PROCESS_TRACEPOINT], policy_names=NAMES)
    )
    return request


class TopView:
    """The tables of `TopModel`."""

    def __init__(self, group: str, address: str, *, unicode: bool = True) -> None:
        from cli.top_model import TopModel

        self.model = TopModel()
        self._group = group
        self._address = address
        self._fit = Fit(unicode=unicode)

    def take(self, batch: Batch) -> None:
        """Count a batch."""
        self.model.take(batch, time.time())

    def press(self, key: str) -> None:
        """Choose a group."""
        self._group = _BY_KEY.get(key, self._group)

    def draw(self, width: int, height: int, notice: str) -> RenderableType:
        """Return header, rates, longest running, and the keys or a notice."""
        return self.picture(width, height, time.time(), notice)

    def picture(self, width: int, height: int, now_s: float, notice: str = "") -> Text:
        """Return the screen at a given time."""
        from rich.text import Text

        from cli.top_model import GROUPS

        model = self.model
        rows = model.rows(self._group, now_s)
        sums_of = rows if self._group in GROUPS else model.rows("binary", now_s)
        starts = sum(row.starts_per_s for row in sums_of)
        ends = sum(row.ends_per_s for row in sums_of)
        clock = time.strftime("%H:%M:%S", time.localtime(now_s))
        head = f"tetra top   {self._address}   nodes {len(model.nodes)}   {clock}"
        lost = f"lost {model.lost}" + (f", gaps {model.gaps}" if model.gaps else "")
        others = f"   other events {model.others}" if model.others else ""
        sums = f"starts {starts:.1f}/s   ends {ends:.1f}/s   running {len(model.running)}   {lost}"
        room = max(4, height - _FRAME_LINES)
        rates = [self._rate(row, width) for row in rows[: room // 2]]
        running = self._longest(room - max(len(rates), 1), width, now_s)
        titles, nothing = _RATE_TITLES, "(nothing has started or ended yet)"
        if self._group not in GROUPS:
            titles, nothing = _ACCESS_TITLES, _NO_ACCESS[self._group]
        lines = [
            Text(self._fit.padded(head, width), style="reverse"),
            Text(
                self._fit(sums + others, width),
                style="bold red" if model.lost or model.gaps else "",
            ),
            Text(self._columns(self._group.upper(), titles, width), style="bold"),
            *(rates or [Text(nothing, style="dim")]),
            Text(),
            Text(self._running("PID", "USER", "RUNNING", "LONGEST RUNNING", width), style="bold"),
            *running,
        ]
        lines = [*lines, *[Text()] * height][: max(0, height - 1)]
        foot = Text(self._fit.padded(visible(notice) or _KEYS, width), style="reverse")
        text = Text("\n").join([*lines, foot])
        text.no_wrap, text.overflow = True, "crop"
        return text

    def _columns(self, name: str, numbers: tuple[str, ...], width: int) -> str:
        shown = numbers[: max(0, (width - _LEAST_NAME_COLUMNS) // _NUMBER_COLUMNS)]
        right = "".join(f"{number:>{_NUMBER_COLUMNS}}" for number in shown)
        return self._fit(self._fit.padded(name, width - len(right)) + right, width)

    def _running(self, pid: str, user: str, ran: str, command: str, width: int) -> str:
        user = self._fit.padded(user, _USER_COLUMNS) + "  "
        shown_user = user if width >= _LEAST_COLUMNS_WITH_USER else ""
        return self._fit(f"{pid:>8}  {shown_user}{ran:>7}  {command}", width)

    def _rate(self, row: Row, width: int) -> Text:
        from rich.text import Text

        numbers = (f"{row.starts_per_s:.1f}", f"{row.ends_per_s:.1f}", str(row.total))
        return Text(self._columns(row.name, numbers, width))

    def _longest(self, count: int, width: int, now_s: float) -> list[Text]:
        from rich.text import Text

        several = len(self.model.nodes) > 1
        lines = []
        for process in self.model.longest(count):
            command = f"@{process.node} {process.command}" if several else process.command
            ran = duration_text(now_s - process.start_s)
            line = self._running(str(process.pid), process.user, ran, command, width)
            lines.append(Text(line))
        return lines


COMMAND = Command(
    "top",
    run,
    summary="show which programs start and end most, live",
    text="""Show process starts and ends a second, by binary, user, container or node (over the last
ten seconds), the processes that have run longest, and what was lost. By file and by peer it shows
the accesses that the ready-made policies files and network report. If stdout is not a terminal, or
with --once, one table is printed after an interval.

keys: b binary   u user   c container   n node   f file   p peer   q quit

examples:
  tetra top
  tetra top --by user --node web-1
  tetra top --once --interval 10s        one table after ten seconds, for scripts
""",
    params=[
        Flag(
            "--by",
            type=Choice(*_BY_KEY.values()),
            default="binary",
            help="how starts and ends are grouped [default: binary]",
        ),
        repeated("--node", type=NODES, help="only events of this node"),
        Flag(
            "--interval", type=DURATION, default=1.0, help="time between two updates [default: 1s]"
        ),
        Flag("--once", is_flag=True, help="print one table after an interval"),
    ],
)
