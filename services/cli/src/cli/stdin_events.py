"""Events from stdin: JSON lines that ``-o json`` or Tetragon's export file have."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

from google.protobuf import json_format

from cli.errors import UsageError
from cli.filters import apply_field_filters, local_predicate
from cli.resume import Batch
from cli.terminal import notice
from tetra.v1.stream_pb2 import StreamEventsRequest
from tetragon.events_pb2 import GetEventsResponse

_CHUNK_BYTES = 256 * 1024
_PATIENCE_S = 2.0
_HINT = "to ask a server: tetra getevents --server-address localhost:54321"


def read_events(
    request: StreamEventsRequest, *, max_line_bytes: int, quiet: bool
) -> Iterator[Batch]:
    """Yield a batch for each piece of stdin, filtered here as a server would."""
    for wanted in ("since", "until", "last", "after", "snapshot"):
        if request.HasField(wanted):
            raise UsageError(f"--{wanted}: events come from stdin", _HINT)
    matches = [local_predicate(wanted) for wanted in request.allow_list]
    nodes = frozenset(request.nodes)
    skipped = lines = 0
    if not quiet and not select.select([0], [], [], _PATIENCE_S)[0]:
        notice(f"waiting for JSON events on stdin; {_HINT}")
    for chunk in _lines(max_line_bytes):
        events = []
        for line in chunk:
            lines += 1
            event = _parse(line)
            if event is None:
                skipped += bool(line.strip())
            elif (not nodes or event.node_name in nodes) and all(test(event) for test in matches):
                apply_field_filters(event, request.field_filters)
                events.append(event)
        yield Batch(events)
    if quiet:
        return
    if not lines:
        notice(f"stdin was empty; {_HINT}")
    elif skipped:
        notice(f"stdin: {skipped} of {lines} lines are no events")


def _lines(max_line_bytes: int) -> Iterator[list[bytes]]:
    rest = b""
    while chunk := os.read(0, _CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > max_line_bytes:
            raise UsageError(
                f"stdin: a line has more than {max_line_bytes} bytes", "--max-recv-size 67108864"
            )
        yield whole
    if rest:
        yield [rest]


def _parse(line: bytes) -> GetEventsResponse | None:
    try:
        event = json_format.Parse(line, GetEventsResponse(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError):
        return None
    return event if event.WhichOneof("event") else None
