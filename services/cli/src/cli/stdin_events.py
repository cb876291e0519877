"""Events from stdin: JSON lines that ``-o json`` wrote, or Tetragon's export file."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import eventfilters
from cli.errors import UsageError
from cli.resume import Batch
from cli.terminal import notice
from cli.words import counted
from eventjson.decoder import decode
from tetra.v1.stream_pb2 import StreamEventsRequest

_CHUNK_BYTES = 256 * 1024
_PATIENCE_S = 2.0
_SERVER = "tetra getevents --server-address localhost:54321"
_HINT = f"to ask a server: {_SERVER}"


def read_events(
    request: StreamEventsRequest, *, max_line_bytes: int, quiet: bool
) -> Iterator[Batch]:
    """Yield a batch for each piece of stdin, filtered as a gateway filters."""
    for wanted in ("since", "until", "last", "after", "snapshot"):
        if request.HasField(wanted):
            raise UsageError(
                f"--{wanted}: events come from stdin, which has no past", f"{_SERVER} --last 100"
            )
    filters = _compile(request)
    nodes = frozenset(request.nodes)
    skipped = lines = 0
    if not quiet and not select.select([0], [], [], _PATIENCE_S)[0]:
        notice(f"waiting for JSON events on stdin; {_HINT}")
    for chunk in _lines(max_line_bytes):
        events = []
        for line in chunk:
            lines += 1
            event = decode(line)
            if event is None:
                skipped += bool(line.strip())
            elif not nodes or event.node_name in nodes:
                sent = filters.apply_parsed(eventfilters.Event(None, event))
                if sent is not None:
                    events.append(sent)
        yield Batch(events)
    if quiet:
        return
    if not lines:
        notice(f"stdin was empty; {_HINT}")
    elif skipped:
        notice(f"stdin: skipped {skipped} of {counted(lines, 'line')}: no JSON event")


def _compile(request: StreamEventsRequest) -> eventfilters.Filters:
    try:
        return eventfilters.compile(request.allow_list, request.deny_list, request.field_filters)
    except eventfilters.FilterError as error:
        raise UsageError(str(error), "--process '^/usr/bin/(ls|cat)$'") from None


def _lines(max_line_bytes: int) -> Iterator[list[bytes]]:
    rest = b""
    while chunk := os.read(0, _CHUNK_BYTES):
        *complete, rest = (rest + chunk).split(b"\n")
        if len(rest) > max_line_bytes:
            raise UsageError(
                f"stdin: a line has more than {max_line_bytes} bytes", "--max-recv-size 67108864"
            )
        yield complete
    if rest:
        yield [rest]
