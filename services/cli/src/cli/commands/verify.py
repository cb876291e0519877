"""``tetra verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.command import Args, Command
from cli.flags import Flag, repeated
from cli.node_names import NODES
from cli.server_flags import server_options
from cli.terminal import Output, notice, visible
from cli.values import TIME, Choice
from cli.words import counted
from eventjson.times import rfc3339

if TYPE_CHECKING:
    from cli.account import Book
    from tetra.v1.stream_pb2 import StreamEventsRequest

INCOMPLETE = 3  # exit code
_HEADS = ("NODE", "EVENTS", "FROM", "TO", "MISSING", "LOST", "DUPLICATES")


def run(args: Args) -> int:
    """Read the stream, account for it, print the result."""
    from cli.account import Book
    from cli.client import Client
    from cli.errors import UnsupportedError
    from cli.progress_line import ProgressLine

    book = Book()
    line = ProgressLine()
    with Client(server_options(args), notice=notice, progress=line.show) as client:
        for batch in client.stream(_request(args)):
            if batch.cursor is None:
                raise UnsupportedError(
                    f"verify: {client.address}: a plain Tetragon does not number its events"
                )
            book.enter(batch)
    line.clear()
    output = Output.stdout()
    output.write(_json(book) if args.output == "json" else _text(book))
    return 0 if book.is_complete and not book.damage else INCOMPLETE


def _request(args: Args) -> StreamEventsRequest:
    from google.protobuf.field_mask_pb2 import FieldMask

    from tetra.v1.stream_pb2 import Cursor, StreamEventsRequest
    from tetragon.events_pb2 import INCLUDE, FieldFilter

    request = StreamEventsRequest(
        nodes=args.node,
        no_follow=True,
        check_copies=args.since is None if args.copies is None else args.copies,
        field_filters=[FieldFilter(fields=FieldMask(paths=["process.exec_id"]), action=INCLUDE)],
    )
    if args.since is not None:
        request.since.CopyFrom(args.since)
    else:
        request.after.CopyFrom(Cursor())
    return request


def _text(book: Book) -> str:
    from cli.commands.nodes import table

    rows: list[tuple[str, ...]] = [
        ("NODE", "EVENTS", "FROM", "TO", "MISSING", "LOST", "DUPLICATES")
    ]
    for node, account in sorted(book.accounts.items()):
        rows.append(
            (
                visible(node) or "(stream)",
                str(account.events),
                rfc3339(account.first) if account.first else "-",
                rfc3339(account.last) if account.last else "-",
                str(account.missing),
                str(account.lost),
                str(account.duplicates),
            )
        )
    lines = table(rows) + [visible(line) for line in book.lines()]
    if book.aged_out:
        aged_out = counted(book.aged_out, "message")
        lines.append(f"aged out: {aged_out} at the start of the stream")
    count = sum(1 for node in book.accounts if node)
    nodes = counted(count, "node")
    withheld = f", {book.withheld} withheld" if book.withheld else ""
    events, gaps = counted(book.events, "event"), counted(len(book.gaps), "gap")
    lines.append(f"{_verdict(book)}: {events} of {nodes}, {gaps}{withheld}")
    return "".join(line + "\n" for line in lines)


def _verdict(book: Book) -> str:
    if not book.is_complete:
        return "not complete"
    return "complete, but not in every copy" if book.damage else "complete"


def _json(book: Book) -> str:
    import json

    nodes = [
        {
            "node_name": node,
            "events": account.events,
            "from": rfc3339(account.first) if account.first else None,
            "to": rfc3339(account.last) if account.last else None,
            "missing": account.missing,
            "lost": account.lost,
            "twice": account.duplicates,
            "withheld": account.withheld,
        }
        for node, account in sorted(book.accounts.items())
    ]
    result = {
        "whole": book.is_complete,
        "nodes": nodes,
        "holes": book.gaps,
        "aged_out": book.aged_out,
        "damaged_copies": book.damage,
        "unseen_copies": book.unread_copies,
    }
    return json.dumps(result) + "\n"


COMMAND = Command(
    "verify",
    run,
    summary="prove that the stream is complete, or list what is missing",
    text="""Read the stream from its beginning to its current end and account for every event.

Each collector numbers its events without a gap. Numbers that are missing, events that a collector
reports as lost, times when no collector ran, and duplicates are listed with node, time and cause.
Exit code 0: nothing is missing or duplicated. 3: something is. Events withheld by throttling are
counted separately: they are accounted for, so they are not missing.

On a NATS cluster, a server does not report that its copy of the stream is damaged, and the other
servers hide it. So each copy is first read separately; a damaged one is named, and the exit
code is 3. With --since, copies are not read; --copies and --no-copies override that.

examples:
  tetra verify
  tetra verify --since 1h --node web-1
  tetra verify -o json | jq '.nodes[] | select(.missing > 0)'
""",
    params=[
        Flag(
            "--since",
            type=TIME,
            help="begin at a time instead of the beginning: 10m (ago), 2h, 2026-05-01T12:00:00Z",
        ),
        repeated("--node", type=NODES, help="only events of this node"),
        Flag(
            "--copies/--no-copies",
            default=None,
            help="read each copy of the stream [default: yes, but not with --since]",
        ),
        Flag(
            "-o",
            "--output",
            type=Choice("text", "json"),
            default="text",
            help="output format [default: text]",
        ),
    ],
)
