"""The loop of one sink: read, select, encode, deliver with retries, save the position."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TypeVar

import structlog

from chassis.backoff import Backoff
from eventstream.batch import Batch
from eventstream.errors import BusError
from eventstream.history import History
from exporter import formats
from exporter.config import Common
from exporter.errors import DeliveryError
from exporter.node_reader import NodeReader
from exporter.place import Place, PlaceFile
from exporter.reader import Chunk, Reader
from exporter.selection import RateLimit, Selected, Selection
from exporter.sinks import make
from exporter.sinks.base import Archive, Line
from exporter.sinks.file import File
from exporter.windows import Windows

_SLICE = 500  # events encoded before other tasks run
_RETRY_MIN_S, _RETRY_MAX_S = 0.2, 10.0
_MEASURE_S = 5.0
_REPORT_S = 70.0  # a rate limit's report waits so long for an event of a later minute
_ARCHIVE_S = 1.0  # an archive is asked so often whether it is durable, while no events come

R = TypeVar("R")
Numbered = list[tuple[Batch, int]]  # with how many of its first events are duplicates

_log = structlog.get_logger()


@dataclass(slots=True)
class Totals:
    """Counters of one sink since this exporter started."""

    delivered: int = 0
    delivered_bytes: int = 0
    refused: int = 0
    failures: int = 0
    missing: int = 0  # events that the stream lacks, where their number is known
    gaps: int = 0
    lost: dict[str, int] = field(default_factory=dict)  # by cause


class Worker:
    """Exports to one sink until cancelled."""

    def __init__(self, sink: Common, history: History, places: PlaceFile, own_node: str) -> None:
        """Raises `SinkError` where the sink or its place cannot be used."""
        self.config = sink
        self.totals = Totals()
        self.fault = ""  # why nothing is delivered, empty while it is
        self.newest_ns = 0  # when NATS stored the last batch that the sink has
        self._history = history
        self._places = places
        self._own_node = own_node
        self._encode = formats.encoder(sink.format)
        self._sink = make(sink)
        self._rewinds = self._sink.settle_s > 0 or isinstance(self._sink, Archive)
        self._log = _log.bind(sink=sink.name)
        self._retry = Backoff(_RETRY_MIN_S, _RETRY_MAX_S)
        self._unsettled: deque[tuple[float, Place]] = deque()
        place = places.read()
        if isinstance(self._sink, Archive):
            place = self._sink.resume(place)
        self._begin(place)

    @property
    def file(self) -> File | None:
        """The sink where it is a file."""
        return self._sink if isinstance(self._sink, File) else None

    def _begin(self, place: Place | None) -> None:
        self._kept = place
        self.limit = RateLimit(self.config.rate_limit, place.withheld if place else {})
        self.selection = Selection(self.config, self.limit, self._own_node)
        self.reader = _reader(self._history, self.config)
        self._unsettled.clear()
        settings = self.config.aggregation
        self._windows = Windows(settings) if settings else None
        self._behind = place or Place(0, 0)  # of what is held or delivered, with an aggregation

    async def run(self) -> None:
        """Export until cancelled; raise `SinkError` where the sink can never work."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._measure())
                tasks.create_task(self._export_for_ever())
        finally:
            with suppress(DeliveryError):
                await self._sink.close()

    async def _export_for_ever(self) -> None:
        while True:
            try:
                await self._open()
                await self._follow()
            except _Rewind:
                # The sink may lack what it was sent last: read that again.
                counts = self.selection.counts
                self._begin(self._kept)
                self.selection.counts = counts

    async def _open(self) -> None:
        mark = self._kept.mark if self._kept else {}
        await self._until_taken(lambda: self._sink.open(mark))
        await self.reader.open(self._kept, self.config.start)
        if self._kept is None or isinstance(self._sink, Archive):
            await self._keep(self.reader.place)
        self._log.info("exporting", after=self.reader.place.sequence)

    async def _follow(self) -> None:
        following = asyncio.create_task(self.reader.next())
        try:
            while True:
                await asyncio.wait((following,), timeout=self._wait_s)
                if not following.done():
                    await self._idle()
                    continue
                chunk = following.result()
                place = self.reader.place
                # Read on while this chunk is encoded and delivered.
                following = asyncio.create_task(self.reader.next())
                self._note(chunk)
                for part in _parts(chunk.batches, self._sink.part_bytes):
                    await self._export_part(part)
                if not chunk.batches and not self._windows:
                    await self._keep(place)
        finally:
            following.cancel()
            await asyncio.wait((following,))

    @property
    def _wait_s(self) -> float:
        if isinstance(self._sink, Archive):
            return _ARCHIVE_S
        return min(self._windows.left_s, _REPORT_S) if self._windows else _REPORT_S

    async def _idle(self) -> None:
        if self._windows and not self._windows.left_s:
            await self._end_window()
        if isinstance(self._sink, Archive):
            await self._keep(self.reader.place)
        if not self._windows:
            await self._report_withheld()

    async def _export_part(self, part: Numbered) -> None:
        last = part[-1][0]
        if self._windows is None:
            await self._export(self.selection.select(part))
            await self._keep(Place(last.stream_sequence, last.stored_ns))
            self.newest_ns = last.stored_ns
            return
        for one in part:
            batch = one[0]
            if self._windows.ends_before(batch.stored_ns):
                await self._end_window()
            for event in self.selection.select([one]):
                self._windows.add(event, batch.stored_ns)
            self._behind = Place(batch.stream_sequence, batch.stored_ns)
            await asyncio.sleep(0)
        if not self._windows:  # nothing passes the filters
            await self._end_window()

    async def _end_window(self) -> None:
        assert self._windows is not None
        await self._export(iter(self._windows.take()))
        await self._keep(self._behind)
        self.newest_ns = self._behind.stored_ns

    async def _export(self, events: Iterator[Selected]) -> None:
        lines: list[Line] = []
        while part := [*islice(events, _SLICE)]:
            lines += [Line(event, self._encode(event)) for event in part]
            await asyncio.sleep(0)
            if len(lines) >= self._sink.max_batch:
                await self._deliver(lines)
                lines = []
        if lines:
            await self._deliver(lines)

    async def _deliver(self, lines: list[Line]) -> None:
        most = self._sink.max_batch
        for at in range(0, len(lines), most):
            part = lines[at : at + most]
            refused = await self._until_taken(partial(self._sink.deliver, part))
            self.totals.refused += refused
            self.totals.delivered += len(part) - refused
            self.totals.delivered_bytes += sum(len(line.text) + 1 for line in part)

    async def _keep(self, place: Place) -> None:
        if isinstance(self._sink, Archive):
            await self._until_taken(partial(self._sink.reach, place))
        mark = await self._until_taken(self._sink.mark)
        if mark is None:
            return
        withheld = self.limit.state()
        place = Place(place.sequence, place.stored_ns, mark, withheld)
        if self._sink.settle_s:
            now = time.monotonic()
            self._unsettled.append((now, place))
            if now - self._unsettled[0][0] < self._sink.settle_s and self._kept is not None:
                return
            while self._unsettled and now - self._unsettled[0][0] >= self._sink.settle_s:
                place = self._unsettled.popleft()[1]
        await self._until_taken(partial(asyncio.to_thread, self._places.write, place))
        self._kept = place

    # Without limit: if later chunks were read before this one is delivered, events would be lost.
    async def _until_taken(self, step: Callable[[], Awaitable[R]]) -> R:
        while True:
            try:
                value = await step()
            except (DeliveryError, OSError) as error:
                self.totals.failures += 1
                if not self._retry.attempts:
                    self._log.warning("sink does not accept events, retrying", error=str(error))
                self.fault = str(error)
                await self._retry.wait()
                if self._rewinds and self._kept is not None:
                    raise _Rewind from None
                continue
            if self._retry.attempts:
                self._log.info("sink accepts events again", failures=self._retry.attempts)
            self._retry.reset()
            self.fault = ""
            return value

    async def _report_withheld(self) -> None:
        now_ns = time.time_ns()
        if withheld := self.limit.advance(now_ns):
            await self._export(iter([self.selection.report(withheld, now_ns)]))
            await self._keep(self.reader.place)

    def _note(self, chunk: Chunk) -> None:
        if isinstance(self._sink, Archive):
            self._sink.note(chunk.losses, chunk.gaps)
        for loss in chunk.losses:
            for cause, count in loss.lost.by_cause.items():
                self.totals.lost[cause] = self.totals.lost.get(cause, 0) + count
            if loss.lost.by_cause:
                self._log.warning(
                    "events lost at their collector", node=loss.node_name, **loss.lost.by_cause
                )
            if loss.lost.withheld:
                self._log.info(
                    "events withheld by throttling", node=loss.node_name, **loss.lost.withheld
                )
        for gap in chunk.gaps:
            self.totals.gaps += 1
            self.totals.missing += gap.count
            cause = gap.Cause.Name(gap.cause).removeprefix("CAUSE_").lower()
            self._log.warning(
                "gap in the stream", node=gap.node_name, cause=cause, count=gap.count,
                first=gap.first, last=gap.last,
            )  # fmt: skip

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(_MEASURE_S)
            with suppress(BusError):
                await self.reader.measure()


def _reader(history: History, sink: Common) -> Reader:
    if len(sink.nodes) == 1:
        return NodeReader(history, sink.name, sink.nodes[0])
    return Reader(history, sink.name)


def _parts(batches: Numbered, most: int) -> Iterator[Numbered]:
    """Yield ``batches`` in parts of about ``most`` bytes."""
    part: Numbered = []
    size = 0
    for one in batches:
        part.append(one)
        size += one[0].size_bytes
        if size >= most:
            yield part
            part, size = [], 0
    if part:
        yield part


class _Rewind(Exception):
    """Begin again at the saved position."""
