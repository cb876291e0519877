"""``tetra getevents``."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli.arguments import add_list, add_switch, checked, duration_s, server_options
from cli.errors import UsageError
from cli.terminal import Output, notice, terminal_width, wants_colour
from cli.timestamps import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cli.bookmark import Bookmark
    from cli.renderers import Renderer
    from cli.resume import Batch
    from tetra.v1.stream_pb2 import StreamEventsRequest

HELP = "print events as they happen, or as they happened"
DESCRIPTION = """Print events, one a line, until Ctrl-C. All filters given must hold.

examples:
  tetra getevents                                  every process, live
  tetra getevents --process '^/usr/bin/' --host    binaries that match, outside of pods
  tetra getevents -e exit -o json                  ends only, as JSON
  tetra getevents --since 10m --until 5m           what happened then
  tetra getevents --last 100 --no-follow           the last 100 events, and stop
  tetra getevents --node web-1 --node web-2        two hosts
  tetra getevents --format '{{time}} {{pid}} {{binary}}'
  tetra getevents --last 1000 --no-follow -o tree  who started whom
  tetra getevents -o json --cursor-file place --reconnect >> events.json
                                                   go on where the last one ended, or was killed
  tetra getevents -o json > events.json            keep them ...
  tetra getevents -o compact < events.json         ... and look at them later
"""

OUTPUTS = ("lifecycle", "json", "compact", "tree")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    _output_flags(parser.add_argument_group("output"))
    _filter_flags(parser.add_argument_group("filters (regular expressions are RE2, unanchored)"))
    _time_flags(parser.add_argument_group("which part of the stream"))


def _output_flags(group: argparse._ActionsContainer) -> None:
    group.add_argument("-o", "--output", choices=OUTPUTS, help="form [lifecycle]")
    group.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="colours [auto]"
    )
    group.add_argument(
        "--format",
        default="",
        metavar="TEMPLATE",
        help="own form: '{{time}} {{pid}} {{process.cwd}}', or fields to stand in columns: "
        "time,pid,user; words: type time node pid ppid user binary arguments command "
        "parent_command container end, and every path of the JSON form",
    )
    add_switch(group, "--timestamps", help="begin lines with the time of the event")
    add_switch(
        group, "--extensions", help="show our own fields in JSON (argv, container_info, ...)"
    )
    add_list(group, "-f", "--include-fields", metavar="PATH", help="only these fields: process.pid")
    add_list(group, "-F", "--exclude-fields", metavar="PATH", help="not these fields: parent")
    add_switch(
        group,
        "--quote",
        default=True,
        help="compact: quote texts that have spaces or unprintable characters; =false as in "
        "Tetragon up to 1.7.0 [true]",
    )
    add_switch(group, "--stack-traces", default=True, help="compact: stacks of kprobes [true]")
    add_switch(group, "--ima-hash", default=True, help="compact: IMA hashes of files [true]")
    group.add_argument(
        "-t", "--tty-encode", default="", metavar="PATH", help="only what was written to this tty"
    )
    add_switch(group, "-q", "--quiet", help="no notices about losses and connections on stderr")


def _filter_flags(group: argparse._ActionsContainer) -> None:
    add_list(group, "-e", "--event-types", metavar="TYPE", help="PROCESS_EXEC, PROCESS_EXIT, ...")
    add_list(group, "--process", "--processes", metavar="REGEX", help="binary")
    add_list(group, "--parent-process", metavar="REGEX", help="binary of the parent")
    add_list(group, "--arguments", metavar="REGEX", help="arguments")
    add_list(group, "--pid", metavar="PID", help="process id")
    add_list(group, "--pid-set", metavar="PID", help="process id, or that of an ancestor")
    add_list(
        group, "-n", "--namespace", "--namespaces", metavar="NAME", help="namespace of the pod"
    )
    add_list(group, "--namespace-regex", metavar="REGEX", help="namespace of the pod")
    add_list(group, "--pod", "--pods", metavar="REGEX", help="name of the pod")
    add_list(group, "--containers", metavar="REGEX", help="name of the container")
    add_list(group, "--container-id", metavar="REGEX", help="id of the container")
    add_switch(group, "--host", help="processes outside of pods")
    group.add_argument(
        "--labels",
        action="append",
        default=[],
        metavar="SELECTOR",
        help="labels of the pod: app=web",
    )
    add_list(group, "--policy-names", metavar="NAME", help="tracing policy that made the event")
    add_list(
        group,
        "--capabilities",
        metavar="[SET:[MODE:]]NAME",
        help="capabilities of the process: effective:any:CAP_BPF+CAP_PERFMON",
    )
    add_list(group, "--cel-expression", metavar="CEL", help="process_exec.process.pid > uint(1)")


def _time_flags(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--since",
        metavar="TIME",
        type=checked(parse_time, "time"),
        help="begin at a time: 10m (ago), 14:30, 2026-01-31T14:30:00Z",
    )
    group.add_argument(
        "--until", metavar="TIME", type=checked(parse_time, "time"), help="stop at a time"
    )
    group.add_argument("--last", metavar="N", type=int, help="begin N events ago")
    group.add_argument("--after", metavar="CURSOR", help="begin behind a cursor (--show-cursor)")
    add_switch(group, "--snapshot", help="begin with the processes that run already")
    add_list(group, "--node", metavar="NAME", help="events of this node only")
    group.add_argument(
        "--follow",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with what happens from now on [follow]",
    )
    add_switch(group, "--show-cursor", help="at the end print the cursor on stderr")
    group.add_argument(
        "--cursor-file",
        metavar="FILE",
        type=Path,
        help="keep the cursor in FILE, and begin behind the one that is there; appended to a file, "
        "each event stands there once, whatever is killed",
    )
    add_switch(group, "--reconnect", help="connect again for ever, whatever happens")
    group.add_argument(
        "--reconnect-wait",
        type=duration_s,
        default=2.0,
        metavar="DURATION",
        help="longest wait between two attempts [2s]",
    )


def run(args: argparse.Namespace) -> int:
    """Print events until their end."""
    if args.format and args.output:
        raise UsageError("--format and --output: each says how lines look", "--format pid,binary")
    output = Output.stdout(exact=args.output == "compact")
    request = _request(args)
    if not args.quiet and (args.include_fields or args.exclude_fields):
        _doubt_fields([*args.include_fields, *args.exclude_fields])
    renderer = make_renderer(args, output)
    bookmark = _open_bookmark(args, request) if args.cursor_file else None
    try:
        for batch in _batches(args, request, bookmark):
            output.write(renderer.render(batch.events))
            if bookmark is not None:
                bookmark.passed(batch.cursor)
            if not args.quiet:
                _tell_losses(batch)
    finally:
        output.write(renderer.finish())
        if bookmark is not None:
            bookmark.close()
    return 0


def _open_bookmark(args: argparse.Namespace, request: StreamEventsRequest) -> Bookmark:
    """Return the bookmark; ``request`` begins there if it was laid before."""
    from cli.bookmark import Bookmark

    if args.output == "tree":
        raise UsageError("--cursor-file: a tree is printed at its end only", "-o json")
    if _reads_stdin(args):
        raise UsageError(
            "--cursor-file: events from stdin have no cursors", "tetra getevents < /dev/null"
        )
    bookmark = Bookmark(args.cursor_file, sys.stdout.fileno())
    if bookmark.cursor is not None:
        request.after.CopyFrom(bookmark.cursor)
    else:
        _check_beginning(args, request)
        bookmark.since_ns = request.since.ToNanoseconds() if request.HasField("since") else 0
        bookmark.snapshot = request.snapshot
    cut = bookmark.begin()
    if cut and not args.quiet:
        notice(f"{cut} bytes behind the cursor are cut from standard output: they come again")
    return bookmark


def make_renderer(args: argparse.Namespace, output: Output) -> Renderer:
    """Return the renderer that the flags ask for."""
    colour = wants_colour(args.color, sys.stdout)
    if args.tty_encode:
        from cli.renderers.compact import TtyRenderer

        return TtyRenderer(args.tty_encode)
    if args.format:
        from cli.renderers.template import TemplateRenderer

        return TemplateRenderer(args.format)
    if args.output == "tree":
        from cli.renderers.tree import TreeRenderer

        return TreeRenderer(colour=colour, unicode=output.unicode, width=terminal_width())
    if args.output == "json":
        from cli.renderers.json import JsonRenderer

        return JsonRenderer(extensions=args.extensions, ascii=not output.unicode)
    if args.output == "compact":
        from cli.renderers.compact import CompactRenderer
        from cli.renderers.pen import CompactOptions

        return CompactRenderer(
            CompactOptions(
                colour=colour,
                timestamps=args.timestamps,
                stack_traces=args.stack_traces,
                ima_hash=args.ima_hash,
                quote=args.quote,
                guard=sys.stdout.isatty(),
            )
        )
    from cli.renderers.lifecycle import LifecycleRenderer

    return LifecycleRenderer(
        colour=colour,
        timestamps=args.timestamps,
        show_node=bool(args.node),
        emoji=output.unicode,
    )


def _request(args: argparse.Namespace) -> StreamEventsRequest:
    from cli.cursor import parse_cursor
    from cli.filters import field_filters_from, filter_from
    from tetra.v1.stream_pb2 import StreamEventsRequest

    starts = [
        flag
        for flag, given in (
            ("--since", args.since is not None),
            ("--last", args.last is not None),
            ("--after", args.after is not None),
            ("--snapshot", args.snapshot),
        )
        if given
    ]
    if args.after is not None and args.cursor_file is not None:
        starts.append("--cursor-file")
    if len(starts) > 1:
        raise UsageError(f"{' and '.join(starts)}: there is one beginning only", starts[0])
    if args.last is not None and not 0 < args.last < 1 << 64:
        raise UsageError("--last: must be at least 1, and a number that fits", "--last 100")
    request = StreamEventsRequest(
        allow_list=[filter_from(args)],
        field_filters=field_filters_from(args),
        nodes=args.node,
        no_follow=not args.follow,
        until=args.until,
    )
    if args.since is not None:
        request.since.CopyFrom(args.since)
        if args.until is not None and args.until.ToNanoseconds() < args.since.ToNanoseconds():
            raise UsageError("--until: is before --since", "--since 20m --until 10m")
    elif args.last is not None:
        request.last = args.last
    elif args.after is not None:
        request.after.CopyFrom(parse_cursor(args.after))
    elif args.snapshot:
        request.snapshot = True
    if args.cursor_file is None:
        _check_beginning(args, request)
    return request


def _check_beginning(args: argparse.Namespace, request: StreamEventsRequest) -> None:
    if not args.follow and request.WhichOneof("start") is None:
        raise UsageError("--no-follow: shows nothing without a beginning", "--last 100 --no-follow")


def _batches(
    args: argparse.Namespace, request: StreamEventsRequest, bookmark: Bookmark | None
) -> Iterator[Batch]:
    if _reads_stdin(args):
        from cli.stdin_events import read_events

        yield from read_events(request, max_line_bytes=args.max_recv_size, quiet=args.quiet)
        return
    from cli.client import Client, ResumePolicy
    from cli.cursor import cursor_text
    from cli.errors import UnsupportedError

    policy = ResumePolicy(always=args.reconnect, wait_s=args.reconnect_wait)
    cursor = None
    with Client(server_options(args), notice=_ignore if args.quiet else notice) as client:
        if not args.quiet:
            client.doubt_nodes(args.node)
        try:
            for batch in client.stream(request, policy, bookmark.since_ns if bookmark else 0):
                if bookmark is not None and cursor is None and batch.cursor is None:
                    raise UnsupportedError(
                        f"--cursor-file: {client.address} is a plain Tetragon, which has no cursors"
                    )
                yield batch
                cursor = batch.cursor or cursor
        finally:
            if args.show_cursor and cursor is not None:
                notice(f"cursor: {cursor_text(cursor)}")


def _ignore(text: str) -> None:
    pass


def _doubt_fields(paths: Sequence[str]) -> None:
    """Tell of fields that no event has: the original takes them too, and shows nothing."""
    from cli.renderers.template import did_you_mean, is_field

    for path in paths:
        if not is_field(path):
            notice(f"no event has a field {path!r}{did_you_mean(path)}")


def _reads_stdin(args: argparse.Namespace) -> bool:
    """Tell whether events come from stdin: a pipe or a file there, and no server asked for."""
    if args.server_address or os.environ.get("TETRA_SERVER_ADDRESS"):
        return False
    try:
        mode = os.fstat(0).st_mode
    except OSError:  # closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _tell_losses(batch: Batch) -> None:
    for loss in batch.losses:
        causes = ", ".join(
            f"{cause.replace('_', ' ')} {count}"
            for cause, count in sorted(loss.lost.by_cause.items())
        )
        notice(f"loss: node {loss.node_name}: {causes}")
    for gap in batch.gaps:
        from cli.renderers.gaps import gap_text

        notice(gap_text(gap))
