"""``tetra getevents --count-by`` and ``--first-seen``: questions about the past."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cli.command import Args
from cli.commands.getevents_flags import COUNT_FIELDS
from cli.errors import UsageError
from cli.server_flags import server_options
from cli.terminal import Output, notice, visible
from cli.words import grouped
from eventjson.times import rfc3339

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from cli.flags import Flag
    from tetra.v1.stream_pb2 import (
        CountBasis,
        CountEventsRequest,
        CountEventsResponse,
        CountRow,
    )

# Flags about single events.
_REFUSED = (
    "snapshot", "last", "after", "cursor_file", "show_cursor", "format", "include_fields",
    "exclude_fields", "tty_encode", "wide", "timestamps", "extensions", "reconnect", "aggregate",
)  # fmt: skip


def print_count(args: Args, flags: Iterable[Flag]) -> int:
    """Print the answer; raise `UsageError` for flags that choose another form."""
    from cli.client import Client
    from cli.progress_line import ProgressLine

    _check(args, flags)
    request = count_request(args)
    line = ProgressLine(quiet=args.quiet)
    with Client(server_options(args), notice=notice, progress=line.show) as client:
        if not args.quiet:
            client.warn_of_unknown_nodes(args.node)
        answers = client.count(request)
    line.clear()
    output = Output.stdout()
    for text in _texts(args, answers):
        output.write(text)
    return 0


def _check(args: Args, flags: Iterable[Flag]) -> None:
    flag = "--first-seen" if args.first_seen else "--count-by"
    if args.count_by and args.first_seen:
        raise UsageError("--count-by and --first-seen: choose one", "--first-seen binary")
    for one in flags:
        name = one.name or ""
        if name in _REFUSED and getattr(args, name) not in (one.default, None, [], ""):
            raise UsageError(
                f"{flag} and {one.opts[-1]}: the second is about single events",
                f"{flag} binary --since 1h",
            )
    if args.output not in (None, "json"):
        raise UsageError(
            f"{flag}: its output formats are a table and json", f"{flag} binary -o json"
        )
    fields = args.count_by or args.first_seen
    for field in fields:
        if field not in COUNT_FIELDS:
            raise UsageError(
                f"{flag}: no field {field!r}: {', '.join(COUNT_FIELDS)}", f"{flag} binary,user"
            )
    if args.top < 0:
        raise UsageError("--top: must be 0 (all) or more", "--top 20")


def count_request(args: Args) -> CountEventsRequest:
    """Return what the flags ask for."""
    from cli.filters import filter_from
    from tetra.v1.stream_pb2 import CountEventsRequest

    wanted = filter_from(args)
    return CountEventsRequest(
        allow_list=[wanted] if wanted.ListFields() else [],
        nodes=args.node,
        since=args.since,
        until=args.until,
        by=args.count_by or args.first_seen,
        first_seen=bool(args.first_seen),
        limit=args.top,
    )


def _texts(args: Args, answers: list[CountEventsResponse]) -> Iterable[str]:
    fields = args.count_by or args.first_seen
    rows = [row for answer in answers for row in answer.rows]
    basis = answers[-1].basis
    if args.output == "json":
        yield from (f"{json.dumps(_row_object(fields, row))}\n" for row in rows)
        yield f"{json.dumps({'basis': _basis_object(basis)})}\n"
        return
    from cli.commands.nodes import table

    first_seen = bool(args.first_seen)
    lines = table([_heads(fields, first_seen), *(_cells(row, first_seen) for row in rows)])
    yield "".join(f"{line}\n" for line in lines)
    yield "".join(f"{line}\n" for line in basis_lines(basis, len(rows)))


def _heads(fields: list[str], first_seen: bool) -> tuple[str, ...]:
    names = [field.upper() for field in fields]
    return ("FIRST SEEN", "NODE", "EVENTS", *names) if first_seen else ("EVENTS", *names)


def _cells(row: CountRow, first_seen: bool) -> tuple[str, ...]:
    values = [visible(value) or "-" for value in row.values]
    if first_seen:
        return (_second(row.first), visible(row.first_node), str(row.count), *values)
    return (str(row.count), *values)


def basis_lines(basis: CountBasis, shown: int) -> list[str]:
    """Return the basis of the answer: complete, or what is missing."""
    from cli.renderers.gaps import gap_text

    events = sum(node.events for node in basis.nodes)
    count = len(basis.nodes)
    nodes = grouped(count, "node")
    lines = []
    if basis.rows > shown:
        lines.append(f"{basis.rows - shown:,} more rows: --top 0 prints all")
    span = f", {_second(basis.first)} to {_second(basis.last)}" if events else ""
    about = f"{basis.matched:,} of {grouped(events, 'event')} of {nodes}{span}"
    holes = [
        f"loss: node {loss.node_name}: "
        + ", ".join(f"{cause} {n}" for cause, n in sorted(loss.lost.by_cause.items()))
        + f", reported at {rfc3339(loss.time)}"
        for loss in basis.losses
    ] + [gap_text(gap) for gap in basis.gaps]
    lines += [visible(hole) for hole in holes]
    verdict = "not complete" if holes else "complete"
    lines.append(f"based on {about}: {verdict}")
    return lines


def _second(time: Timestamp) -> str:
    return rfc3339(time)[:19] + "Z"


def _row_object(fields: list[str], row: CountRow) -> dict[str, Any]:
    return {
        **dict(zip(fields, row.values, strict=True)),
        "events": row.count,
        "first": rfc3339(row.first),
        "last": rfc3339(row.last),
        "first_node": row.first_node,
    }


def _basis_object(basis: CountBasis) -> dict[str, Any]:
    lines = basis_lines(basis, basis.rows)
    return {
        "complete": len(lines) == 1,
        "holes": lines[:-1],
        "nodes": {node.node_name: node.events for node in basis.nodes},
        "first": rfc3339(basis.first) if basis.HasField("first") else None,
        "last": rfc3339(basis.last) if basis.HasField("last") else None,
        "matched": basis.matched,
        "rows": basis.rows,
        "from_columns": basis.from_columns,
    }
