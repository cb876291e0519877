"""``tetra verify``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cli.command import Args, Command, Flag, repeated
from cli.server_flags import server_options
from cli.terminal import Output, notice, visible
from cli.values import NODES, TIME, Choice
from eventjson.times import rfc3339

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from cli.resume import Batch
    from tetra.v1.stream_pb2 import StreamEventsRequest
    from tetragon.events_pb2 import GetEventsResponse

NOT_WHOLE = 3


@dataclass(slots=True)
class Account:
    """What came from one node."""

    events: int = 0
    twice: int = 0
    missing: int = 0
    lost: int = 0
    first: Timestamp | None = None
    last: Timestamp | None = None
    seen: set[int] = field(default_factory=set, repr=False)


@dataclass(slots=True)
class Book:
    """Accounts by node, and the holes in the order of the stream."""

    accounts: dict[str, Account] = field(default_factory=dict)
    holes: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)  # of single copies: nothing is missing
    unseen_copies: list[str] = field(default_factory=list)
    aged_out: int = 0

    def enter(self, batch: Batch) -> None:
        """Account for one response."""
        from cli.renderers.gaps import COPIES, gap_text
        from tetra.v1.stream_pb2 import GapNotice

        for gap in batch.gaps:
            if gap.cause == GapNotice.CAUSE_AGED_OUT and not self.events:
                self.aged_out += gap.count  # before the beginning: nothing to prove there
                continue
            if gap.cause in COPIES:
                seen = gap.cause == GapNotice.CAUSE_COPY_DAMAGED
                texts = self.damage if seen else self.unseen_copies
                if (text := gap_text(gap)) not in texts:
                    texts.append(text)
                continue
            self._account(gap.node_name).missing += gap.count
            self.holes.append(gap_text(gap))
        for loss in batch.losses:
            counts = dict(loss.lost.by_cause)
            account = self._account(loss.node_name)
            account.lost += sum(counts.values())
            causes = ", ".join(f"{count} {name}" for name, count in counts.items())
            self.holes.append(
                f"loss: node {loss.node_name}: {causes}, told at {rfc3339(loss.time)}"
            )
        for event in batch.events:
            self._enter_event(event)

    def lines(self) -> list[str]:
        """Return all there is to tell."""
        return [*self.holes, *self.damage, *self.unseen_copies]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing and nothing came twice."""
        return not self.holes and not any(a.twice for a in self.accounts.values())

    @property
    def events(self) -> int:
        """All events."""
        return sum(account.events for account in self.accounts.values())

    def _account(self, node: str) -> Account:
        return self.accounts.setdefault(node, Account())

    def _enter_event(self, event: GetEventsResponse) -> None:
        account = self._account(event.node_name)
        account.events += 1
        account.first = account.first or event.time
        account.last = event.time
        kind = event.WhichOneof("event")
        if kind in ("process_exec", "process_exit"):
            exec_id = getattr(event, kind).process.exec_id
            if exec_id:  # a bare exit has none
                name = hash((kind, exec_id))  # a tenth of the memory that the names take
                if name in account.seen:
                    account.twice += 1
                account.seen.add(name)


def run(args: Args) -> int:
    """Read, account, print."""
    from cli.client import Client, ResumePolicy
    from cli.errors import UnsupportedError
    from cli.progress_line import ProgressLine

    book = Book()
    line = ProgressLine()
    with Client(server_options(args), notice=notice, progress=line.show) as client:
        for batch in client.stream(_request(args), ResumePolicy()):
            if batch.cursor is None:
                raise UnsupportedError(
                    f"verify: {client.address}: a plain Tetragon does not number its events"
                )
            book.enter(batch)
    line.clear()
    output = Output.stdout()
    output.write(_json(book) if args.output == "json" else _text(book))
    return 0 if book.whole and not book.damage else NOT_WHOLE


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

    rows: list[tuple[str, ...]] = [("NODE", "EVENTS", "FROM", "TO", "MISSING", "LOST", "TWICE")]
    for node, account in sorted(book.accounts.items()):
        rows.append(
            (
                visible(node) or "(stream)",
                str(account.events),
                rfc3339(account.first) if account.first else "-",
                rfc3339(account.last) if account.last else "-",
                str(account.missing),
                str(account.lost),
                str(account.twice),
            )
        )
    lines = table(rows) + [visible(hole) for hole in book.lines()]
    if book.aged_out:
        lines.append(f"the stream begins {book.aged_out} messages after its first: they aged out")
    count = sum(1 for node in book.accounts if node)
    nodes = f"{count} node" + ("" if count == 1 else "s")
    verdict = "not whole" if not book.whole else (
        "whole, but not in every copy" if book.damage else "whole"
    )  # fmt: skip
    lines.append(f"{verdict}: {book.events} events of {nodes}, {len(book.holes)} holes")
    return "".join(line + "\n" for line in lines)


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
            "twice": account.twice,
        }
        for node, account in sorted(book.accounts.items())
    ]
    told = {
        "whole": book.whole, "nodes": nodes, "holes": book.holes, "aged_out": book.aged_out,
        "damaged_copies": book.damage, "unseen_copies": book.unseen_copies,
    }  # fmt: skip
    return json.dumps(told) + "\n"


COMMAND = Command(
    "verify",
    run,
    summary="prove that the stream is complete, or list what is missing",
    text="""Read the stream from its beginning to its present end and account for every event.

Each collector numbers its events without a gap. Numbers that are missing, events that a collector
reports as lost, times when no collector ran, and duplicates are listed with node, time and cause.
Exit code 0: nothing is missing or duplicated. 3: something is.

On a NATS cluster, a server with a damaged copy of the stream does not report it, and the other
servers answer for it. So each copy is read on its own first; a damaged one is named, and the exit
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
            help="form of the output [default: text]",
        ),
    ],
)
