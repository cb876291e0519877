"""Makes the responses of one tetra.v1.EventStream."""

from __future__ import annotations

import asyncio
import time

from eventstream import encoded
from eventstream.batch import Batch
from gateway.plan import Plan
from gateway.selection import Selected, Selection
from gateway.streams import Context, Streams
from tetra.v1 import stream_pb2

MAX_RESPONSE_BYTES = 900_000  # unless a single event is larger
MAX_RESPONSE_EVENTS = 8192
CURSOR_EVERY_S = 1.0  # where nothing passes the filters

# A batch whose first event is this far behind a time has none before it.
DISORDER_NS = 5 * 1_000_000_000
# How long after `until` earlier events may still arrive.
GRACE_NS = 2 * 1_000_000_000


class Reporter:
    """Reports how much of the past was read, at most once a second."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sent_at = time.monotonic()

    async def report(self, done: int, total: int) -> None:
        """Send a response that has progress and nothing else, if it is time."""
        now = time.monotonic()
        if now - self._sent_at >= CURSOR_EVERY_S:
            self._sent_at = now
            progress = stream_pb2.Progress(done=done, total=total)
            response = stream_pb2.StreamEventsResponse(progress=progress)
            await self._context.write(response.SerializeToString())


class Sender:
    """Sends the events of one stream, from its plan's start to its end."""

    def __init__(
        self,
        request: stream_pb2.StreamEventsRequest,
        selection: Selection,
        plan: Plan,
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
        # What is in the past when the stream begins, for the progress.
        self._first = plan.feed.position
        self._past = plan.end if plan.end is not None else streams.broadcaster.head

    async def run(self) -> None:
        """Send until the end."""
        await self._send()  # at once, so that the client knows its position
        for snapshot in self._plan.snapshots.values():
            async for part in self._selection.select_payloads(snapshot.events):
                for _, payload in part:
                    await self._add(payload, self._cursor)
        if self._count:
            await self._send()
        while await self._wait():
            while (found := self._feed.next_nowait()) is not None:
                batch, duplicates = found
                if self._is_over(batch):
                    await self._flush()
                    return
                await self._take(batch, self._skip(batch, duplicates))
                if self._at_end() or self._size_bytes > MAX_RESPONSE_BYTES // 2:
                    break
                await self._selection.turn.rest()
            await self._flush()

    # False: the end is reached. Anything in memory counts as there at once.
    async def _wait(self) -> bool:
        if self._at_end():
            return False
        until_ns = self._plan.window.until_ns
        if until_ns is None:
            await self._feed.wait()
            return True
        left_s = (until_ns + GRACE_NS - time.time_ns()) / 1e9
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

    # Nodes are not synchronized: an event of one node from before the end may follow an event of
    # another node from after the end.
    def _is_over(self, batch: Batch) -> bool:
        until_ns = self._plan.window.until_ns
        if until_ns is None or not batch.payloads or batch.stream_sequence <= self._plan.counted:
            return False
        return batch.time_ns(0) > until_ns + GRACE_NS

    def _skip(self, batch: Batch, duplicates: int) -> int:
        skip, self._plan.skip = max(self._plan.skip, duplicates), 0
        snapshot = self._plan.snapshots.get(batch.node_name)
        if snapshot is not None and snapshot.boot_id == batch.boot_id:
            skip = max(skip, snapshot.sequence + 1 - batch.first_sequence)
        return skip

    async def _take(self, batch: Batch, skip: int) -> None:
        before_ns, self._seen_ns = self._seen_ns, batch.stored_ns
        behind = (batch.stream_sequence + 1, 0, batch.stored_ns)
        timed = self._is_timed(batch)
        if not timed and self._passes_whole(batch, skip):
            if self._selection.chooses(batch.node_name):
                self._parts.append(batch.spliced())
                self._size_bytes += batch.size_bytes
                self._count += len(batch.payloads)
            self._cursor = behind
            return
        if len(batch.payloads) == 1 and not skip:
            await self._add_part(batch, self._selection.select_one(batch), timed, before_ns)
        else:
            async for part in self._selection.select(batch, skip):
                await self._add_part(batch, part, timed, before_ns)
        self._cursor = behind

    async def _add_part(self, batch: Batch, part: Selected, timed: bool, before_ns: int) -> None:
        for index, payload in part:
            if timed and not self._plan.window.includes(batch.time_ns(index)):
                continue
            if self._plan.drop:
                self._plan.drop -= 1
                continue
            stored_ns = batch.stored_ns if index else before_ns
            await self._add(payload, (batch.stream_sequence, index, stored_ns))

    def _passes_whole(self, batch: Batch, skip: int) -> bool:
        """Return whether the batch is sent unchanged."""
        return (
            skip == 0
            and not batch.malformed
            and self._selection.complete
            and self._size_bytes + batch.size_bytes <= MAX_RESPONSE_BYTES
            and self._count + len(batch.payloads) <= self._max_events
        )

    def _is_timed(self, batch: Batch) -> bool:
        if not batch.payloads:
            return False
        since_ns, until_ns = self._plan.window
        if until_ns is not None:
            return True
        return since_ns > 0 and batch.time_ns(0) < since_ns + DISORDER_NS

    # ``place`` is the event's own: what is sent before it ends there.
    async def _add(self, payload: bytes, place: tuple[int, int, int]) -> None:
        part = encoded.splice_event(payload)
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
        losses, gaps = self._feed.take_notices(self._plan.window)
        rest.losses.extend(n for n in losses if self._selection.chooses(n.node_name))
        rest.gaps.extend(n for n in gaps if not n.node_name or self._selection.chooses(n.node_name))
        if self._first <= self._past:
            self._report(rest.progress, sequence)
        self._parts.append(rest.SerializeToString())
        message = b"".join(self._parts)
        count = self._count
        self._parts.clear()
        self._size_bytes = self._count = 0
        self._sent_at = time.monotonic()
        await self._context.write(message)
        self._streams.sent_events_total += count

    def _report(self, progress: stream_pb2.Progress, position: int) -> None:
        progress.total = self._past + 1 - self._first
        progress.done = min(position - self._first, progress.total)
        if progress.done == progress.total:  # the last report: what follows is live
            self._first = self._past + 1
