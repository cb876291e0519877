"""The position of a stream, and the request that continues it after a lost connection.

After a cursor that is simple. Two starts need more care:

- A snapshot consists of events of running processes, and its cursor does not move until it is
  complete. A snapshot that breaks is requested again, and only its missing part is returned; the
  events since the first snapshot then follow from its cursor.
- After a cursor the gateway no longer knows ``since``, and its cursors begin a little earlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cli.processes import process_of
from cli.timestamps import unix_ns
from tetra.v1.stream_pb2 import Cursor, GapNotice, LossNotice, StreamEventsRequest
from tetragon.events_pb2 import GetEventsResponse


class Batch(NamedTuple):
    """The content of one response of the stream."""

    events: Sequence[GetEventsResponse]
    cursor: Cursor | None = None  # the place after these events; None from a plain Tetragon
    losses: Sequence[LossNotice] = ()
    gaps: Sequence[GapNotice] = ()


class Progress:
    """How far one stream has come; ``request`` requests the rest of it.

    ``since_ns``: events before this time are left out if the request begins after a cursor.
    """

    def __init__(self, request: StreamEventsRequest, since_ns: int = 0) -> None:
        self.request = StreamEventsRequest()
        self.request.CopyFrom(request)
        self._no_follow = request.no_follow
        if request.HasField("since"):
            since_ns = request.since.ToNanoseconds()
        self._since_ns = since_ns
        self._snapshot_at: Cursor | None = None
        self._seen: set[str] = set()  # exec_ids of snapshots
        self.repeats = False  # the snapshot is requested again, without what follows
        self._again_at: Cursor | None = None

    @property
    def resumable(self) -> bool:
        """Whether the rest can be requested without missing an event."""
        return self.request.HasField("after") or self._snapshot_at is not None

    def news(self, batch: Batch) -> Batch:
        """Return ``batch`` without events that were returned before; remember its events."""
        if self.repeats:
            self._again_at = self._again_at or batch.cursor
            # When its cursor moves, the snapshot is over; the rest follows from the first cursor.
            fresh = (
                [event for event in batch.events if self._is_new(event)]
                if batch.cursor == self._again_at
                else []
            )
            self._remember(fresh)
            return batch._replace(events=fresh, cursor=None)
        if self.request.snapshot and batch.cursor is not None:
            if self._snapshot_at is None:
                self._snapshot_at = batch.cursor
            if batch.cursor == self._snapshot_at:
                self._remember(batch.events)
        elif self._resumed and (self._seen or self._since_ns):
            return batch._replace(events=[e for e in batch.events if self._is_new(e)])
        return batch

    def passed(self, batch: Batch) -> None:
        """Note that ``batch`` was used: the rest begins after it."""
        if batch.cursor is not None and batch.cursor != self._snapshot_at:
            self.request.after.CopyFrom(batch.cursor)

    def lost(self) -> None:
        """Request the rest after a lost connection."""
        if self.request.snapshot and self._snapshot_at is not None:
            self.repeats, self._again_at = True, None
            self.request.no_follow = True

    def ended(self) -> bool:
        """Return whether the clean end of the call is the end of the stream."""
        if not self.repeats:
            return self._no_follow or self.request.HasField("until")
        assert self._snapshot_at is not None
        self.request.after.CopyFrom(self._snapshot_at)
        self.request.no_follow = self._no_follow
        self.repeats, self._snapshot_at = False, None
        return False

    @property
    def _resumed(self) -> bool:
        return self.request.HasField("after")

    def _remember(self, events: Iterable[GetEventsResponse]) -> None:
        for event in events:
            process = process_of(event)
            if process is not None:
                self._seen.add(process.exec_id)

    def _is_new(self, event: GetEventsResponse) -> bool:
        if self._since_ns and unix_ns(event.time) < self._since_ns:
            return False
        if event.WhichOneof("event") != "process_exec":
            return True
        exec_id = event.process_exec.process.exec_id
        return not exec_id or exec_id not in self._seen
