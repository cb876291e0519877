"""tetra.v1.EventStream.CountEvents: from the columns first, the rest from the stream."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from eventcolumns.basis import chosen
from eventcolumns.errors import ColumnsError
from eventcolumns.fields import since_ns_of, until_ns_of
from eventcolumns.rows import place_of, row_of
from eventcolumns.tally import Tally
from eventfilters import Event
from eventstream import encoded
from eventstream.batch import Batch
from gateway import past
from gateway.columns import Reach
from gateway.errors import RequestError
from gateway.fleet import Fleet
from gateway.past import Past
from gateway.plan import Plan, Planner
from gateway.selection import Selection
from gateway.streams import Context
from tetra.v1.stream_pb2 import (
    CountEventsRequest,
    CountEventsResponse,
    Cursor,
    GapNotice,
    LossNotice,
    StreamEventsRequest,
)

_PROGRESS_S = 1.0
_PART_ROWS = 5000


@dataclass(slots=True)
class Count:
    """One request and its answer."""

    request: CountEventsRequest
    selection: Selection
    past: Past
    fleet: Fleet
    context: Context
    _tally: Tally = field(init=False)
    _losses: list[LossNotice] = field(default_factory=list)
    _gaps: list[GapNotice] = field(default_factory=list)
    _from_columns: int = 0
    _reported_at: float = 0.0

    def __post_init__(self) -> None:
        self._tally = tally_of(self.request)

    async def run(self) -> None:
        """Send the answer."""
        request = self.request
        since_ns = 0 if request.first_seen else since_ns_of(request)
        reach = None
        if not request.stream_only and await self.past.is_in_columns(since_ns, filtered=True):
            reach = await self._read_columns()
        try:
            await self._read_stream(reach)
        except ColumnsError as error:
            raise RequestError(str(error)) from None
        await self._answer()

    async def _read_columns(self) -> Reach | None:
        asked = CountEventsRequest()
        asked.CopyFrom(self.request)
        del asked.nodes[:]
        asked.nodes.extend(sorted(self.selection.nodes))
        async with self.past.columns.ask(asked) as answers:
            async for data in answers:
                answer = CountEventsResponse.FromString(data)
                if answer.HasField("progress"):
                    await self._report(answer.progress.done, answer.progress.total)
                self._take(answer)
                await self.selection.turn.rest()
        if answers.reach is not None:
            self._gaps += past.not_kept(since_ns_of(self.request), answers.reach)
        return answers.reach

    def _take(self, answer: CountEventsResponse) -> None:
        try:
            for row in answer.rows:
                first_ns, last_ns = row.first.ToNanoseconds(), row.last.ToNanoseconds()
                values = tuple(row.values)
                self._tally.add(values, row.count, first_ns, last_ns, row.first_node)
        except ColumnsError as error:
            raise RequestError(str(error)) from None
        if answer.HasField("basis"):
            basis = answer.basis
            ends = basis.first.ToNanoseconds(), basis.last.ToNanoseconds()
            for node in basis.nodes:
                self._tally.add_node(node.node_name, node.events, *ends)
            self._losses += basis.losses
            self._gaps += basis.gaps
            self._from_columns = basis.from_columns

    async def _read_stream(self, reach: Reach | None) -> None:
        request = StreamEventsRequest(no_follow=True)
        if reach is not None:
            request = past.follow(request, reach)
        elif self.request.HasField("since") and not self.request.first_seen:
            request.since.CopyFrom(self.request.since)
        else:
            request.after.CopyFrom(Cursor())
        planner = Planner(request, self.selection, self.past.streams, self.fleet, self._report)
        plan = await planner.plan()
        if reach is not None:
            await self.past.remember(plan.feed, reach)
        await self._read(plan)
        losses, gaps = plan.feed.take_notices()
        self._losses += losses
        # A question about the whole stream begins at its first event: older, deleted events are not
        # missing.
        everything = request.HasField("after") and reach is None
        self._gaps += [
            gap for gap in gaps if not everything or gap.cause != GapNotice.CAUSE_AGED_OUT
        ]

    async def _read(self, plan: Plan) -> None:
        feed, begin = plan.feed, plan.feed.position
        assert plan.end is not None
        while feed.position <= plan.end:
            found = feed.next_nowait()
            if found is None:
                await feed.wait()
                continue
            batch, duplicates = found
            await self._add(batch, max(duplicates, plan.skip))
            plan.skip = 0
            await self._report(feed.position - begin, plan.end + 1 - begin)
            await self.selection.turn.rest()

    async def _add(self, batch: Batch, skip: int) -> None:
        if not self.selection.chooses(batch.node_name):
            return
        tally = self._tally
        payloads = batch.payloads
        times = [encoded.event_time_ns(one) or batch.stored_ns for one in payloads]
        within = [
            at_ns
            for at_ns, payload in zip(times[skip:], payloads[skip:], strict=True)
            if payload and tally.includes(at_ns)
        ]
        if within:
            tally.add_node(batch.node_name, len(within), min(within), max(within))
        events: list[Event] | None = None
        for index in await self.selection.passing(batch, skip):
            if tally.reads(times[index]):
                events = events or [*batch.events()]
                event = events[index]
                tally.add_row(row_of(place_of(batch, index, event), event))
            await self.selection.turn.rest()

    async def _report(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._reported_at >= _PROGRESS_S:
            self._reported_at = now
            response = CountEventsResponse()
            response.progress.done, response.progress.total = min(done, total), total
            await self.context.write(response.SerializeToString())

    async def _answer(self) -> None:
        rows, basis = self._tally.answer()
        request = self.request
        losses, gaps = chosen(
            self._losses, self._gaps, since_ns_of(request), until_ns_of(request),
            sorted(self.selection.nodes),
        )  # fmt: skip
        basis.losses.extend(losses)
        basis.gaps.extend(gaps)
        basis.from_columns = self._from_columns
        for at in range(0, len(rows), _PART_ROWS):
            part = CountEventsResponse(rows=rows[at : at + _PART_ROWS])
            await self.context.write(part.SerializeToString())
        await self.context.write(CountEventsResponse(basis=basis).SerializeToString())


def tally_of(request: CountEventsRequest) -> Tally:
    """Return an empty tally; raise `RequestError` where the request makes no sense."""
    try:
        return Tally(request)
    except ColumnsError as error:
        raise RequestError(str(error)) from None
    except ValueError:
        raise RequestError("since, until: not a time between the years 1 and 9999") from None
