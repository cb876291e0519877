"""The fields that events can be counted by."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from eventcolumns.errors import ColumnsError
from eventcolumns.rows import Row
from tetra.v1.stream_pb2 import CountEventsRequest

# Name in a request -> column.
FIELDS = {
    "type": "kind",
    "binary": "binary",
    "arguments": "arguments",
    "user": "user",
    "uid": "uid",
    "parent": "parent_binary",
    "container": "container",
    "container-id": "container_id",
    "image": "image",
    "pod": "pod",
    "namespace": "namespace",
    "unit": "unit",
    "node": "node",
    "policy": "policy",
    "function": "function",
    "file": "file",
    "peer": "peer",
    "port": "peer_port",
    "status": "status",
    "signal": "signal",
}
MAX_FIELDS = 6


def columns_of(names: Sequence[str]) -> list[str]:
    """Return the columns; raise `ColumnsError` naming an unknown field."""
    if not 0 < len(names) <= MAX_FIELDS:
        raise ColumnsError(f"count by: {len(names)} fields, 1 to {MAX_FIELDS} are allowed")
    for name in names:
        if name not in FIELDS:
            close = get_close_matches(name, FIELDS, 1)
            hint = f"did you mean {close[0]}?" if close else f"fields: {', '.join(FIELDS)}"
            raise ColumnsError(f"count by: no field {name!r}: {hint}")
    return [FIELDS[name] for name in names]


def values_of(row: Row, columns: Sequence[int]) -> tuple[str, ...]:
    """Return the texts of these columns, by their numbers; "" where the event has none."""
    return tuple(["" if row[at] is None else str(row[at]) for at in columns])


def since_ns_of(request: CountEventsRequest) -> int:
    """Return the beginning of the time that the request is about; 0: no limit."""
    return request.since.ToNanoseconds() if request.HasField("since") else 0


def until_ns_of(request: CountEventsRequest) -> int:
    """Return the end of the time that the request is about; 0: no limit."""
    return request.until.ToNanoseconds() if request.HasField("until") else 0
