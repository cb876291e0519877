"""Whether a question about the past is answered from the columns, and what follows in the stream.

The columns are beside the stream and a little behind it: an answer takes what they have, and what
came later from the stream.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from eventcolumns import schema
from eventcolumns.schema import Block
from eventstream.errors import BusError
from gateway.columns import Columns, Reach
from gateway.feed import Feed
from gateway.plan import CLOCKS_APART_NS, time_ns
from gateway.streams import Streams
from tetra.v1.stream_pb2 import Cursor, GapNotice, StreamEventsRequest

# Reading fewer messages than this from the stream is faster than a query of the columns.
LEAST_MESSAGES = 500
_SECOND_NS = 1_000_000_000


@dataclass(slots=True)
class Past:
    """The columns as a part of the stream."""

    columns: Columns
    streams: Streams

    async def is_in_columns(self, since_ns: int, *, filtered: bool) -> bool:
        """Return whether the columns should answer instead of the stream.

        ``since_ns`` 0: all that is kept. ``filtered``: only some of the events are wanted.
        """
        blocks = await self._blocks()
        if not blocks:
            return False
        history = self.streams.history
        first, last = await history.bounds()
        found = await history.find(max(0, since_ns - CLOCKS_APART_NS))
        if found is None:  # the stream has no events of that time
            return blocks[-1].to_s * _SECOND_NS > since_ns
        is_cut = found.stream_sequence == first > 1 and found.stored_ns > since_ns
        is_older = blocks[0].generation < blocks[-1].generation
        if is_cut and (is_older or blocks[0].first < first):
            return True
        if not is_older and blocks[0].first > found.stream_sequence:
            return False
        saved = min(blocks[-1].last, last) - found.stream_sequence + 1
        return filtered and saved >= LEAST_MESSAGES

    async def _blocks(self) -> list[Block]:
        folder = self.columns.folder
        if folder is None:
            return []
        try:
            return await asyncio.to_thread(schema.blocks, folder)
        except OSError:
            return []

    async def remember(self, feed: Feed, reach: Reach) -> None:
        """Pass the numbers of the columns to ``feed``, so that it detects a gap after them."""
        try:
            feed.remember(await self.streams.history.last_of_each_node(reach.last))
        except BusError:  # the stream is read next, and its reader waits for NATS
            return


def follow(request: StreamEventsRequest, reach: Reach) -> StreamEventsRequest:
    """Return the request for what follows the columns in the stream."""
    rest = StreamEventsRequest()
    rest.CopyFrom(request)
    rest.after.CopyFrom(Cursor(stream_sequence=reach.last + 1, stored_ns=reach.last_stored_ns))
    return rest


def not_kept(request_since_ns: int, reach: Reach) -> list[GapNotice]:
    """Return the notice about events that the columns no longer have, if they are requested."""
    from_ns = reach.oldest_s * _SECOND_NS
    if reach.oldest_first <= 1 or not 0 < request_since_ns < from_ns:
        return []
    gap = GapNotice(cause=GapNotice.CAUSE_AGED_OUT)
    gap.to.FromNanoseconds(from_ns)
    return [gap]


def since_of(request: StreamEventsRequest) -> int:
    """Return the beginning of a request in nanoseconds; raise `RequestError`."""
    return time_ns("since", request.since) if request.HasField("since") else 0
