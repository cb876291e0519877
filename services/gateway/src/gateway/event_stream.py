"""tetra.v1.EventStream: events in batches, from any place of the stream, with what is missing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from gateway import rights, wire
from gateway.batch import Batch
from gateway.errors import BusError, RequestError
from gateway.feed import Feed
from gateway.fleet import Fleet, Snapshot
from gateway.history import CHUNK_BATCHES, History
from gateway.selection import Selection
from gateway.streams import Context, Streams, refusing, refusing_filters
from tetra.v1 import stream_pb2

NAME = "tetra.v1.EventStream"

MAX_RESPONSE_BYTES = 900_000  # unless a single event is larger
MAX_RESPONSE_EVENTS = 8192
CURSOR_EVERY_S = 1.0  # where nothing passes the filters

# Events are found by the time that NATS took them; host clocks may be ahead of its clock by this.
CLOCKS_APART_NS = 60 * 1_000_000_000
# A batch whose first event is this far behind a time has none before it.
DISORDER_NS = 5 * 1_000_000_000
_LAST_TIME_NS = 253_402_300_799 * 1_000_000_000  # 9999-12-31T23:59:59Z
# How long behind `until` events from before it may still come.
GRACE_NS = 2 * 1_000_000_000


class EventStream:
    """The methods of the service."""

    def __init__(self, streams: Streams, fleet: Fleet) -> None:
        self._streams = streams
        self._fleet = fleet

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what a server needs; responses are made as bytes."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "StreamEvents": grpc.unary_stream_rpc_method_handler(
                refusing_filters(self.stream_events, stream_pb2.StreamEventsRequest)
            ),
            "ListNodes": grpc.unary_unary_rpc_method_handler(
                refusing(self.list_nodes, stream_pb2.ListNodesRequest),
                response_serializer=wire.serialize,
            ),
        }
        return [grpc.method_handlers_generic_handler(NAME, methods)]

    async def stream_events(
        self, request: stream_pb2.StreamEventsRequest, context: Context
    ) -> None:
        """Send batches from the start that was asked for until the client or the end comes."""
        nodes = rights.choose_nodes(frozenset(request.nodes))
        async with self._streams.open(request, nodes) as selection:
            plan = await self._plan(request, selection)
            await context.send_initial_metadata(())
            await _Sender(request, selection, plan, context, self._streams).run()

    async def list_nodes(
        self, request: stream_pb2.ListNodesRequest, context: Context
    ) -> stream_pb2.ListNodesResponse:
        """Answer every node; while NATS is away, what was known last."""
        try:
            nodes = await self._fleet.describe()
        except BusError:
            nodes = self._fleet.nodes()
        return stream_pb2.ListNodesResponse(
            nodes=[node for node in nodes if rights.may_see(node.node_name)]
        )

    async def _plan(self, request: stream_pb2.StreamEventsRequest, selection: Selection) -> _Plan:
        history = self._streams.history
        start = request.WhichOneof("start")
        if start is None or (start == "last" and request.last == 0):
            plan = _Plan(self._streams.feed(selection.turn))
        elif start == "last":
            plan = await self._plan_last(request.last, selection)
        elif start == "since":
            plan = await self._plan_since(_time_ns("since", request.since), selection)
        elif start == "after":
            plan = await self._plan_after(request.after, selection)
        else:
            plan = _Plan(
                self._streams.feed(selection.turn)
            )  # before the collectors are asked: no hole
            if request.snapshot:
                plan.snapshots = await self._fleet.snapshot(selection.nodes)
        if start in ("last", "since", "after") and await history.is_cut():
            plan.feed.note_cut()
        if request.check_copies:
            first, last = await history.bounds()
            damage, unreachable = await history.copies.check(first, last)
            for one in damage:
                plan.feed.note_copy(one)
            for server in unreachable:
                plan.feed.note_unseen_copy(server)
        if request.no_follow:
            plan.end = max((await history.bounds()).last, self._streams.broadcaster.head)
        if request.HasField("until"):
            plan.until_ns = _time_ns("until", request.until)
        return plan

    async def _plan_after(self, cursor: stream_pb2.Cursor, selection: Selection) -> _Plan:
        if cursor.stored_ns > _LAST_TIME_NS:
            raise RequestError(f"after: {cursor.stored_ns} ns are no time before the year 10000")
        history = self._streams.history
        first, last = await history.bounds()
        start = max(cursor.stream_sequence, 1)
        seen = start if cursor.index else start - 1
        if seen < first or (seen <= last and await self._is_same(seen, cursor.stored_ns)):
            return _Plan(
                self._streams.feed(selection.turn, start),
                skip=cursor.index,
                stored_ns=cursor.stored_ns,
            )
        # The stream is another, or lost its end: what came later than what was seen is new.
        if cursor.stored_ns:
            found = await history.find(cursor.stored_ns)
            while found is not None and found.stored_ns <= cursor.stored_ns:
                found = next(iter((await history.fetch(found.stream_sequence + 1)).batches), None)
            first = found.stream_sequence if found else last + 1
        plan = _Plan(self._streams.feed(selection.turn, first))
        plan.feed.note_aged_out(0)
        return plan

    async def _is_same(self, sequence: int, stored_ns: int) -> bool:
        """Return whether the message is the one that NATS took then, as far as that is known."""
        if not stored_ns:
            return True
        batches = (await self._streams.history.fetch(sequence, 1)).batches
        there = batches[0] if batches and batches[0].stream_sequence == sequence else None
        return there is None or there.stored_ns == stored_ns

    async def _plan_since(self, since_ns: int, selection: Selection) -> _Plan:
        history = self._streams.history
        first, last = await history.bounds()
        found = await history.find(max(0, since_ns - CLOCKS_APART_NS))
        if found is None:
            return _Plan(self._streams.feed(selection.turn, last + 1), since_ns=since_ns)
        plan = _Plan(self._streams.feed(selection.turn, found.stream_sequence), since_ns=since_ns)
        if found.stream_sequence == first > 1 and found.stored_ns > since_ns:
            plan.feed.note_aged_out(0, found)
        return plan

    async def _plan_last(self, count: int, selection: Selection) -> _Plan:
        start, skip = await find_last(self._streams.history, count, selection)
        return _Plan(self._streams.feed(selection.turn, start), skip=skip)


@dataclass(slots=True)
class _Plan:
    """Where a stream starts and ends."""

    feed: Feed
    skip: int = 0  # events of the first message that are behind the start
    stored_ns: int = 0  # when NATS took the last message that is; 0: unknown
    since_ns: int = 0
    until_ns: int | None = None
    end: int | None = None  # last message, where the stream is not followed
    snapshots: dict[str, Snapshot] = field(default_factory=dict)


def _time_ns(name: str, time: Timestamp) -> int:
    try:
        return time.ToNanoseconds()
    except ValueError:
        raise RequestError(
            f"{name}: {time.seconds} s and {time.nanos} ns are no time between the years 1 and 9999"
        ) from None


async def find_last(history: History, count: int, selection: Selection) -> tuple[int, int]:
    """Return message and event index of the last ``count`` events of the chosen nodes."""
    first, last = await history.bounds()
    beyond = last + 1
    while beyond > first:
        at = max(first, beyond - CHUNK_BATCHES)
        sizes: list[tuple[int, int]] = []  # message, events
        while at < beyond:
            fetched = (await history.fetch(at)).batches
            batches = [batch for batch in fetched if batch.stream_sequence < beyond]
            if not batches:
                break
            sizes += [
                (batch.stream_sequence, len(batch.payloads))
                for batch in batches
                if selection.chooses(batch.node_name)
            ]
            at = batches[-1].stream_sequence + 1
        for sequence, size in reversed(sizes):
            if size >= count:
                return sequence, size - count
            count -= size
        beyond = max(first, beyond - CHUNK_BATCHES)
    return first, 0


class _Sender:
    """Makes the responses of one stream."""

    def __init__(
        self,
        request: stream_pb2.StreamEventsRequest,
        selection: Selection,
        plan: _Plan,
        context: Context,
        streams: Streams,
    ) -> None:
        self._streams = streams
        self._selection = selection
        self._plan = plan
        self._feed = plan.feed
        self._context = context
        wanted = request.max_batch_events or MAX_RESPONSE_EVENTS
        self._max_events = min(wanted, MAX_RESPONSE_EVENTS)
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self._count = 0
        self._seen_ns = plan.stored_ns or streams.broadcaster.stored_ns_before(plan.feed.position)
        self._cursor = (plan.feed.position, plan.skip, self._seen_ns)
        self._sent_at = 0.0

    async def run(self) -> None:
        """Send until the end."""
        await self._send()  # at once: the client knows where it is
        for snapshot in self._plan.snapshots.values():
            async for part in self._selection.select_payloads(snapshot.events):
                for _, payload in part:
                    await self._add(payload, self._cursor)
        if self._count:
            await self._send()
        while await self._wait():
            while (found := self._feed.next_nowait()) is not None:
                batch, twice = found
                if self._is_over(batch):
                    await self._flush()
                    return
                await self._take(batch, self._skip(batch, twice))
                if self._at_end() or self._size_bytes > MAX_RESPONSE_BYTES // 2:
                    break
                await self._selection.turn.rest()
            await self._flush()

    # False: the end is here. Anything in memory counts as there at once.
    async def _wait(self) -> bool:
        if self._at_end():
            return False
        if self._plan.until_ns is None:
            await self._feed.wait()
            return True
        left_s = (self._plan.until_ns + GRACE_NS - time.time_ns()) / 1e9
        if left_s <= 0 and self._feed.lag == 0:
            return False
        try:
            async with asyncio.timeout(max(left_s, 0) if self._feed.lag == 0 else None):
                await self._feed.wait()
        except TimeoutError:
            return False
        return True

    def _at_end(self) -> bool:
        return self._plan.end is not None and self._feed.position > self._plan.end

    # Nodes are not in step: what one made just before the end may come after what another made
    # just behind it.
    def _is_over(self, batch: Batch) -> bool:
        until_ns = self._plan.until_ns
        if until_ns is None or not batch.payloads:
            return False
        return wire.event_time_ns(batch.payloads[0]) > until_ns + GRACE_NS

    def _skip(self, batch: Batch, twice: int) -> int:
        skip, self._plan.skip = max(self._plan.skip, twice), 0
        snapshot = self._plan.snapshots.get(batch.node_name)
        if snapshot is not None and snapshot.boot_id == batch.boot_id:
            skip = max(skip, snapshot.sequence + 1 - batch.first_sequence)
        return skip

    async def _take(self, batch: Batch, skip: int) -> None:
        before_ns, self._seen_ns = self._seen_ns, batch.stored_ns
        behind = (batch.stream_sequence + 1, 0, batch.stored_ns)
        timed = self._is_timed(batch)
        plain = not timed and not batch.malformed
        if skip == 0 and plain and self._fits(batch) and self._selection.complete:
            if self._selection.chooses(batch.node_name):
                self._parts.append(batch.spliced())
                self._size_bytes += batch.size_bytes
                self._count += len(batch.payloads)
            self._cursor = behind
            return
        async for part in self._selection.select(batch, skip):
            for index, payload in part:
                if not timed or self._is_in_time(batch.payloads[index]):
                    stored_ns = batch.stored_ns if index else before_ns
                    await self._add(payload, (batch.stream_sequence, index, stored_ns))
        self._cursor = behind

    def _fits(self, batch: Batch) -> bool:
        return (
            self._size_bytes + batch.size_bytes <= MAX_RESPONSE_BYTES
            and self._count + len(batch.payloads) <= self._max_events
        )

    def _is_timed(self, batch: Batch) -> bool:
        if not batch.payloads:
            return False
        if self._plan.until_ns is not None:
            return True
        since_ns = self._plan.since_ns
        return since_ns > 0 and wire.event_time_ns(batch.payloads[0]) < since_ns + DISORDER_NS

    def _is_in_time(self, payload: bytes) -> bool:
        time_ns = wire.event_time_ns(payload)
        until_ns = self._plan.until_ns
        return time_ns >= self._plan.since_ns and (until_ns is None or time_ns <= until_ns)

    # ``place`` is the event's own: what is sent before it ends there.
    async def _add(self, payload: bytes, place: tuple[int, int, int]) -> None:
        part = wire.splice_event(payload)
        full = self._size_bytes + len(part) > MAX_RESPONSE_BYTES
        if self._count and (full or self._count >= self._max_events):
            self._cursor = place
            await self._send()
        self._parts.append(part)
        self._size_bytes += len(part)
        self._count += 1

    async def _flush(self) -> None:
        idle = time.monotonic() - self._sent_at > CURSOR_EVERY_S
        if self._count or self._feed.has_notices or idle or self._at_end():
            await self._send()

    async def _send(self) -> None:
        sequence, index, stored_ns = self._cursor
        rest = stream_pb2.StreamEventsResponse(
            cursor=stream_pb2.Cursor(stream_sequence=sequence, index=index, stored_ns=stored_ns)
        )
        losses, gaps = self._feed.take_notices()
        rest.losses.extend(n for n in losses if self._selection.chooses(n.node_name))
        rest.gaps.extend(n for n in gaps if not n.node_name or self._selection.chooses(n.node_name))
        self._parts.append(rest.SerializeToString())
        message = b"".join(self._parts)
        count = self._count
        self._parts.clear()
        self._size_bytes = self._count = 0
        self._sent_at = time.monotonic()
        await self._context.write(message)
        self._streams.sent_events_total += count
