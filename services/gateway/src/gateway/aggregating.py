"""Streams whose equal events of a window become one with a count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from eventstream.aggregation import Aggregator, Limits, limits_of, with_number
from eventstream.batch import Batch
from eventstream.errors import AggregationError
from gateway.errors import RequestError
from gateway.feed import Feed
from gateway.plan import Plan
from gateway.selection import Selection
from gateway.sender import MAX_RESPONSE_BYTES, Sender
from gateway.streams import Context, Streams
from tetra.v1 import stream_pb2
from tetragon.events_pb2 import AggregationOptions, GetEventsResponse

# A window is sent in one response, so that a client that resumes gets it once.
_WINDOW_BYTES = MAX_RESPONSE_BYTES * 3 // 4


def wanted(options: AggregationOptions) -> Limits | None:
    """Return the limits, None without an aggregation; raise `RequestError`."""
    try:
        return limits_of(options)
    except AggregationError as error:
        raise RequestError(f"aggregation_options: {error}") from None


class Window:
    """The window of one stream: it ends by the messages' time, without messages by the clock."""

    def __init__(self, limits: Limits) -> None:
        self._held: Aggregator[bytes] = Aggregator(limits)
        self._until = 0.0  # monotonic

    def __bool__(self) -> bool:
        """Whether an event is held."""
        return bool(self._held)

    def is_over(self, stored_ns: int) -> bool:
        """Return whether the window ends before a batch that NATS stored at this time."""
        return self._held.is_over(stored_ns)

    @property
    def is_full(self) -> bool:
        """Whether the window has to end early because it is full."""
        return self._held.is_full

    @property
    def left_s(self) -> float | None:
        """The seconds until it ends by the clock; None: nothing is held."""
        return max(0.0, self._until - time.monotonic()) if self._held else None

    def add(self, payload: bytes, stored_ns: int) -> None:
        """Add an event."""
        if not self._held:
            self._until = time.monotonic() + self._held.window_s
        event = GetEventsResponse.FromString(payload)
        self._held.add(payload, event, len(payload), stored_ns)

    def take(self) -> list[bytes]:
        """End it; return its events with their counts."""
        return [with_number(*held) for held in self._held.take()]


async def windows(feed: Feed, selection: Selection, window: Window) -> AsyncIterator[list[bytes]]:
    """Yield the events of each window, without end."""
    while True:
        found: tuple[Batch, int] | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(window.left_s):
                found = await feed.next()
        if found is None or window.is_over(found[0].stored_ns):
            yield window.take()
        if found is None:
            continue
        async for part in selection.select(*found):
            for _, payload in part:
                window.add(payload, found[0].stored_ns)
                if window.is_full:
                    yield window.take()


class AggregatingSender(Sender):
    """Sends the events of one stream, aggregated; a cursor is behind a whole window."""

    def __init__(
        self,
        request: stream_pb2.StreamEventsRequest,
        selection: Selection,
        plan: Plan,
        context: Context,
        streams: Streams,
        limits: Limits,
    ) -> None:
        super().__init__(request, selection, plan, context, streams)
        events = min(limits.events, self._max_events)
        self._window = Window(limits._replace(events=events, size_bytes=_WINDOW_BYTES))
        self._behind = self._cursor  # all that was sent
        self._stored_ns = time.time_ns()

    async def run(self) -> None:
        """Send until the end, including the events held then."""
        await super().run()
        if self._window:
            await self._release(self._cursor)

    async def _take(self, batch: Batch, skip: int) -> None:
        if self._window.is_over(batch.stored_ns):
            await self._release(self._cursor)
        self._stored_ns = batch.stored_ns
        await super()._take(batch, skip)

    def _passes_whole(self, batch: Batch, skip: int) -> bool:
        return False

    async def _add(self, payload: bytes, place: tuple[int, int, int]) -> None:
        if self._window.is_full:
            await self._release(place)
        self._window.add(payload, self._stored_ns)

    async def _wait(self) -> bool:
        try:
            async with asyncio.timeout(self._window.left_s):
                return await super()._wait()
        except TimeoutError:
            return True

    async def _flush(self) -> None:
        if self._window and (self._window.left_s == 0.0 or self._at_end()):
            await self._release(self._cursor)
        else:
            await super()._flush()

    async def _release(self, place: tuple[int, int, int]) -> None:
        for payload in self._window.take():
            await super()._add(payload, place)
        self._cursor = place
        await self._send()

    async def _send(self) -> None:
        place = self._cursor
        if self._window:  # events that the cursor counts as sent must have been sent
            self._cursor = self._behind
        await super()._send()
        self._behind, self._cursor = self._cursor, place
