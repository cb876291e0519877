"""Where a stream of events starts, and where it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from eventstream.notices import EVER, Window
from gateway.errors import RequestError
from gateway.feed import Feed
from gateway.fleet import Fleet, Snapshot
from gateway.last import Report, find_last, find_last_in_order
from gateway.selection import Selection
from gateway.streams import Streams
from tetra.v1 import stream_pb2

# Events are found by the time at which NATS stored them; host clocks may be ahead by this.
CLOCKS_APART_NS = 60 * 1_000_000_000
_LAST_TIME_NS = 253_402_300_799 * 1_000_000_000  # 9999-12-31T23:59:59Z


@dataclass(slots=True)
class Plan:
    """Where a stream starts and ends."""

    feed: Feed
    skip: int = 0  # events of the first message that are behind the start
    drop: int = 0  # events that pass the filters and are behind the start, after those
    stored_ns: int = 0  # when NATS stored the last message behind the start; 0: unknown
    window: Window = EVER
    counted: int = 0  # last message that was counted for `last`; it is read regardless of its time
    end: int | None = None  # last message, where the stream is not followed
    snapshots: dict[str, Snapshot] = field(default_factory=dict)


class Planner:
    """Makes the plan of one request."""

    def __init__(
        self,
        request: stream_pb2.StreamEventsRequest,
        selection: Selection,
        streams: Streams,
        fleet: Fleet,
        report: Report,
    ) -> None:
        self._request = request
        self._selection = selection
        self._streams = streams
        self._fleet = fleet
        self._report = report
        self._until_ns = time_ns("until", request.until) if request.HasField("until") else None

    async def plan(self) -> Plan:
        """Return the plan; raise `RequestError` where the request makes no sense."""
        request, history = self._request, self._streams.history
        plan = await self._start()
        plan.window = Window(plan.window.since_ns, self._until_ns)
        if request.WhichOneof("start") in ("last", "since", "after") and await history.is_cut():
            plan.feed.note_cut()
        if request.check_copies:
            first, last = await history.bounds()
            damage, unreachable = await history.copies.check(first, last)
            for one in damage:
                plan.feed.note_copy(one)
            for server in unreachable:
                plan.feed.note_unseen_copy(server)
        if request.no_follow:
            head = self._streams.broadcaster.head
            plan.end = plan.counted or max((await history.bounds()).last, head)
        return plan

    async def _start(self) -> Plan:
        start = self._request.WhichOneof("start")
        if start == "last" and self._request.last:
            return await self._start_last(self._request.last)
        if start == "since":
            return await self._start_since(time_ns("since", self._request.since))
        if start == "after":
            return await self._start_after(self._request.after)
        # Made before the collectors are asked, so that no event falls between the two.
        plan = Plan(self._feed())
        if self._request.snapshot:
            plan.snapshots = await self._fleet.snapshot(self._selection.nodes)
        return plan

    def _feed(self, start: int | None = None) -> Feed:
        return self._streams.feed(self._selection.turn, start)

    async def _start_last(self, count: int) -> Plan:
        history, selection, find = self._streams.history, self._selection, find_last
        if selection.filters.ordered:
            # Separate filters: those of the stream must see the events from the beginning.
            selection = await self._streams.compile(self._request, selection.nodes)
            find = find_last_in_order
        found = await find(history, count, selection, self._until_ns, self._report)
        return Plan(self._feed(found.start), skip=found.skip, drop=found.drop, counted=found.end)

    async def _start_since(self, since_ns: int) -> Plan:
        history = self._streams.history
        first, last = await history.bounds()
        found = await history.find(max(0, since_ns - CLOCKS_APART_NS))
        if found is None:
            return Plan(self._feed(last + 1), window=Window(since_ns))
        plan = Plan(self._feed(found.stream_sequence), window=Window(since_ns))
        if found.stream_sequence == first > 1 and found.stored_ns > since_ns:
            plan.feed.note_aged_out(0, found)
        return plan

    async def _start_after(self, cursor: stream_pb2.Cursor) -> Plan:
        if cursor.stored_ns > _LAST_TIME_NS:
            raise RequestError(f"after: {cursor.stored_ns} ns: not a time before the year 10000")
        history = self._streams.history
        first, last = await history.bounds()
        start = max(cursor.stream_sequence, 1)
        seen = start if cursor.index else start - 1
        if seen < first or (seen <= last and await self._is_same(seen, cursor.stored_ns)):
            return Plan(self._feed(start), skip=cursor.index, stored_ns=cursor.stored_ns)
        # The stream was replaced, or lost its end: messages stored later than the cursor are new.
        if cursor.stored_ns:
            found = await history.find(cursor.stored_ns)
            while found is not None and found.stored_ns <= cursor.stored_ns:
                found = next(iter((await history.fetch(found.stream_sequence + 1)).batches), None)
            first = found.stream_sequence if found else last + 1
        plan = Plan(self._feed(first))
        plan.feed.note_aged_out(0)
        return plan

    async def _is_same(self, sequence: int, stored_ns: int) -> bool:
        """Return whether NATS stored the message at that time, as far as that is known."""
        if not stored_ns:
            return True
        batches = (await self._streams.history.fetch(sequence, 1)).batches
        there = batches[0] if batches and batches[0].stream_sequence == sequence else None
        return there is None or there.stored_ns == stored_ns


def time_ns(name: str, time: Timestamp) -> int:
    """Return ``time`` in nanoseconds; raise `RequestError` where the calendar lacks it."""
    try:
        return time.ToNanoseconds()
    except ValueError:
        raise RequestError(
            f"{name}: {time.seconds} s and {time.nanos} ns: not a time between the years 1 and 9999"
        ) from None
