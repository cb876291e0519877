"""``tetra getevents``."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from cli.command import Args, Command
from cli.commands.getevents_flags import FLAGS
from cli.commands.getevents_output import make_renderer
from cli.commands.getevents_request import check_start, request_from, warn_about_flags
from cli.errors import UsageError
from cli.server_flags import server_options
from cli.terminal import Output, notice
from cli.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.bookmark import Bookmark
    from cli.resume import Batch
    from tetra.v1.stream_pb2 import StreamEventsRequest


def run(args: Args) -> int:
    """Print events until the stream ends."""
    if args.format and args.output:
        raise UsageError("--format and --output: choose one", "--format pid,binary")
    if args.count_by or args.first_seen:
        from cli.commands.getevents_count import print_count

        return print_count(args, FLAGS)
    if args.audit:
        from cli.policies.audit import print_audit

        return print_audit(args, FLAGS)
    output = Output.stdout(exact=args.output == "compact")
    request = request_from(args)
    if not args.quiet:
        warn_about_flags(args)
    renderer = make_renderer(args, output)
    bookmark = _open_bookmark(args, request) if args.cursor_file else None
    try:
        for batch in _batches(args, request, bookmark):
            output.write(renderer.render(batch.events))
            if bookmark is not None:
                bookmark.passed(batch.cursor)
            if not args.quiet:
                _report_losses(batch)
    finally:
        output.write(renderer.finish())
        if bookmark is not None:
            bookmark.close()
    return 0


def _open_bookmark(args: Args, request: StreamEventsRequest) -> Bookmark:
    """Return the bookmark; ``request`` begins there if the file holds a cursor."""
    from cli.bookmark import Bookmark

    if args.output == "tree":
        raise UsageError("--cursor-file: a tree is printed only at the end", "-o json")
    if _reads_stdin(args):
        raise UsageError(
            "--cursor-file: events from stdin have no cursors", "tetra getevents < /dev/null"
        )
    bookmark = Bookmark(args.cursor_file, sys.stdout.fileno())
    if bookmark.cursor is not None:
        request.after.CopyFrom(bookmark.cursor)
    else:
        check_start(args, request)
        bookmark.since_ns = request.since.ToNanoseconds() if request.HasField("since") else 0
        bookmark.snapshot = request.snapshot
    cut = bookmark.begin()
    if cut and not args.quiet:
        text = f"removed {counted(cut, 'byte')} after the cursor from standard output"
        notice(f"{text}: these events are printed again")
    return bookmark


def _batches(
    args: Args, request: StreamEventsRequest, bookmark: Bookmark | None
) -> Iterator[Batch]:
    if _reads_stdin(args):
        if args.aggregate is not None:
            raise UsageError(
                "--aggregate: only a gateway aggregates; events from stdin are printed one by one",
                "tetra getevents --aggregate 5s < /dev/null",
            )
        from cli.stdin_events import read_events

        yield from read_events(request, max_line_bytes=args.max_recv_size, quiet=args.quiet)
        return
    from cli.client import Client
    from cli.cursor import cursor_text
    from cli.errors import UnsupportedError
    from cli.progress_line import ProgressLine
    from cli.reconnect import ResumePolicy

    line = ProgressLine(quiet=args.quiet)

    def print_notice(text: str) -> None:
        line.clear()
        if not args.quiet:
            notice(text)

    policy = ResumePolicy(always=args.reconnect, wait_s=args.reconnect_wait)
    cursor = None
    with Client(server_options(args), notice=print_notice, progress=line.show) as client:
        if not args.quiet:
            client.warn_of_unknown_nodes(args.node)
        try:
            for batch in client.stream(request, policy, bookmark.since_ns if bookmark else 0):
                if bookmark is not None and cursor is None and batch.cursor is None:
                    raise UnsupportedError(
                        f"--cursor-file: {client.address} is a plain Tetragon, which has no cursors"
                    )
                if batch.events or batch.losses or batch.gaps:
                    line.clear()
                yield batch
                cursor = batch.cursor or cursor
        finally:
            line.clear()
            if args.show_cursor and cursor is not None:
                notice(f"cursor: {cursor_text(cursor)}")


def _reads_stdin(args: Args) -> bool:
    """Return whether stdin is a pipe or a file with events, and no server is named."""
    if args.server_address or os.environ.get("TETRA_SERVER_ADDRESS"):
        return False
    try:
        mode = os.fstat(0).st_mode
    except OSError:  # closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _report_losses(batch: Batch) -> None:
    for loss in batch.losses:
        if loss.lost.withheld:
            from cli.account import withheld_text

            notice(f"withheld: node {loss.node_name}: {withheld_text(loss.lost.withheld)}")
        if not loss.lost.by_cause:
            continue
        causes = ", ".join(
            f"{cause.replace('_', ' ')} {count}"
            for cause, count in sorted(loss.lost.by_cause.items())
        )
        notice(f"loss: node {loss.node_name}: {causes}")
    for gap in batch.gaps:
        from cli.renderers.gaps import gap_text

        notice(gap_text(gap))


COMMAND = Command(
    "getevents",
    run,
    summary="print events, live or from the past",
    text="""Print events, one a line, until Ctrl-C. An event is printed if it matches all filters.

examples:
  tetra getevents                                  every process, live
  tetra getevents --process '^/usr/bin/' --host    binaries that match, outside of pods
  tetra getevents -e exit -o json                  only exits, as JSON
  tetra getevents --since 10m --until 5m           what happened in that time
  tetra getevents --last 100 --no-follow           the last 100 events
  tetra getevents --node web-1 --node web-2        events of two hosts
  tetra getevents --format '{{time}} {{pid}} {{binary}}'
  tetra getevents --last 1000 --no-follow -o tree  who started whom
  tetra getevents -o json --cursor-file place --reconnect >> events.json
                                                   continue after the last event in the file
  tetra getevents -o json > events.json            record events ...
  tetra getevents -o compact < events.json         ... and print them later
  tetra getevents --audit --since 1d --no-follow   who changed which policy
  tetra getevents --since 7d --count-by binary,user
                                                   what ran how often, and as whom
  tetra getevents --since 1d --first-seen binary   what never ran before
""",
    params=FLAGS,
)
