"""Answers to requests, from blocks: counts by groups, or events as a stream of responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import eventfilters
from eventcolumns.basis import missing_in
from eventcolumns.conditions import condition
from eventcolumns.engine import BlocksChanged, Engine, Limits
from eventcolumns.fields import columns_of, since_ns_of, until_ns_of
from eventcolumns.rows import row_of
from eventcolumns.schema import Block, Footer
from eventcolumns.tally import Tally
from eventfilters import Event
from eventstream.encoded import splice_events
from tetra.v1.stream_pb2 import (
    CountBasis,
    CountEventsRequest,
    CountEventsResponse,
    CountRow,
    Cursor,
    Progress,
    StreamEventsRequest,
    StreamEventsResponse,
)

_ATTEMPTS = 5  # blocks are merged and removed while they are read
_PART_ROWS = 5000
_PART_BYTES = 512 << 10
_PART_EVENTS = 8192

Footers = list[tuple[Block, Footer]]
Reach = dict[str, int]
Sent = tuple[int, int, bytes]  # message of the stream, place in it, event


class Answers:
    """Answers from the blocks of one folder."""

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        reach: Callable[[Reach], None],
        answer: Callable[[bytes], None],
    ) -> None:
        """``reach`` gets the range of the blocks, before ``answer`` gets their content."""
        self._folder = folder
        self._limits = limits
        self._reach = reach
        self._answer = answer

    def count(self, data: bytes) -> None:
        """Answer a CountEventsRequest: the rows in any order, then the basis."""
        request = CountEventsRequest.FromString(data)
        columns_of(request.by)  # refused before anything is read
        for attempt in range(_ATTEMPTS):
            since_ns = 0 if request.first_seen else since_ns_of(request)
            engine = Engine(self._folder, self._limits, since_ns=since_ns)
            try:
                footers = engine.footers()
                rows, basis = self._count(engine, footers, request)
                break
            except BlocksChanged:
                if attempt == _ATTEMPTS - 1:
                    raise
        self._reach(reach_of(engine, footers))
        for at in range(0, len(rows), _PART_ROWS):
            part = CountEventsResponse(rows=rows[at : at + _PART_ROWS])
            self._answer(part.SerializeToString())
        self._answer(CountEventsResponse(basis=basis).SerializeToString())

    def _count(
        self, engine: Engine, footers: Footers, request: CountEventsRequest
    ) -> tuple[list[CountRow], CountBasis]:
        tally = Tally(request)
        if condition(request.allow_list, request.deny_list).exact:
            for group in engine.count(request, request.nodes, self._report):
                tally.add(*group)
        else:
            self._count_each(engine, request, tally)
        counted = engine.count_nodes(request, request.nodes)
        for node in counted:
            tally.add_node(*node)
        rows, basis = tally.everything()
        basis.from_columns = sum(events for _, events, _, _ in counted)
        losses, gaps = missing_in(
            footers, since_ns_of(request), until_ns_of(request), request.nodes
        )
        basis.losses.extend(losses)
        basis.gaps.extend(gaps)
        return rows, basis

    # Filters that are no conditions on columns: the events themselves are checked.
    def _count_each(self, engine: Engine, request: CountEventsRequest, tally: Tally) -> None:
        match = eventfilters.compile(request.allow_list, request.deny_list).match
        since_ns = 0 if request.first_seen else since_ns_of(request)
        wanted = condition(request.allow_list, request.deny_list)
        for found in engine.find(wanted, request.nodes, since_ns, until_ns_of(request)):
            event = Event(found.event)
            if match is None or match(event):
                tally.add_row(row_of(found.place, event))

    def _report(self, percent: float) -> None:
        progress = Progress(done=int(percent), total=100)
        self._answer(CountEventsResponse(progress=progress).SerializeToString())

    def find(self, data: bytes) -> None:
        """Answer a StreamEventsRequest: responses as a gateway sends them."""
        request = StreamEventsRequest.FromString(data)
        lists = request.allow_list, request.deny_list
        filters = eventfilters.compile(*lists, request.field_filters)
        wanted = condition(*lists)
        # Where the condition is exact, the event is sent unchanged, without parsing it.
        plain = wanted.exact and filters.rewrite is None
        apply = None if plain else filters.apply
        since_ns = request.since.ToNanoseconds() if request.HasField("since") else 0
        until_ns = request.until.ToNanoseconds() if request.HasField("until") else 0
        engine = Engine(self._folder, self._limits, since_ns=since_ns)
        footers = engine.footers()
        reach = reach_of(engine, footers)
        self._reach(reach)
        for generation in sorted({block.generation for block in engine.blocks}):
            parts = engine.events(wanted, request.nodes, since_ns, until_ns, generation)
            # Places in a stream that was replaced have no meaning: behind all of it.
            fixed = None if generation == reach["generation"] else Cursor(
                stream_sequence=reach["first"])  # fmt: skip
            for response in _responses(_passing(parts, apply), fixed):
                self._answer(response)
        losses, gaps = missing_in(footers, since_ns, until_ns, request.nodes)
        end = StreamEventsResponse(losses=losses, gaps=gaps)
        if reach:
            end.cursor.stream_sequence = reach["last"] + 1
            end.cursor.stored_ns = reach["last_stored_ns"]
        self._answer(end.SerializeToString())


def reach_of(engine: Engine, footers: Footers) -> Reach:
    """Return the range of the blocks; empty if there is none."""
    blocks = engine.all_blocks
    if not blocks:
        return {}
    last = blocks[-1]
    newest = [block for block in blocks if block.generation == last.generation]
    return {
        "generation": last.generation,
        "first": newest[0].first,  # message of the stream that is there now
        "last": last.last,
        "last_stored_ns": footers[-1][1].last_stored_ns if footers else last.to_s * 1_000_000_000,
        "oldest_first": blocks[0].first,
        "oldest_s": blocks[0].from_s,
    }


def _passing(
    parts: Iterable[list[Sent]], apply: Callable[[Event], bytes | None] | None
) -> Iterator[list[Sent]]:
    for part in parts:
        if apply is None:
            yield part
            continue
        sent = [(message, at, apply(Event(event))) for message, at, event in part]
        yield [(message, at, event) for message, at, event in sent if event is not None]


def _responses(parts: Iterable[list[Sent]], fixed: Cursor | None) -> Iterator[bytes]:
    held: list[Sent] = []
    size = 0
    for part in parts:
        for one in part:
            held.append(one)
            size += len(one[2])
            if size >= _PART_BYTES or len(held) >= _PART_EVENTS:
                yield _response(held, fixed)
                held, size = [], 0
    if held:
        yield _response(held, fixed)


def _response(held: list[Sent], fixed: Cursor | None) -> bytes:
    message, at, _ = held[-1]
    cursor = fixed or Cursor(stream_sequence=message, index=at + 1)
    events = splice_events([event for _, _, event in held])
    return events + StreamEventsResponse(cursor=cursor).SerializeToString()
