"""The last N events that pass a stream's filters, exactly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from eventstream import encoded
from eventstream.batch import Batch
from eventstream.continuity import Continuity
from eventstream.history import History
from gateway.selection import Selection

# Called with the messages that were read and those that are to be read at most.
Report = Callable[[int, int], Awaitable[None]]
Ranges = list[tuple[int, int]]  # first, last; ascending, with gaps between them

FIRST_STEP, LAST_STEP = 4, 256  # messages read at once, from the end backwards


class Last(NamedTuple):
    """The start from which N events pass the filters up to message ``end``."""

    start: int  # first message to read
    skip: int  # events of it to skip
    drop: int  # events that pass, from there on, not to send
    end: int  # last message that was counted


class _Passed(NamedTuple):
    """The passing events of one batch."""

    stream_sequence: int
    series: tuple[str, str]
    first: int
    last: int
    indexes: list[int]


async def find_last(
    history: History, count: int, selection: Selection, until_ns: int | None, report: Report
) -> Last:
    """Return where the last ``count`` events up to ``until_ns`` begin.

    Reads from the end backwards, as far as needed. An event that is in the stream twice counts
    once, as `Continuity` sends it once.
    """
    first, last = await history.bounds()
    counted: dict[tuple[str, str], Ranges] = {}
    beyond, step = last + 1, FIRST_STEP
    while beyond > first:
        at = max(first, beyond - step)
        for passed in reversed(await _read(history, at, beyond, selection, until_ns)):
            ranges = counted.setdefault(passed.series, [])
            new = add_range(ranges, passed.first, passed.last)
            indexes = [
                index
                for index in passed.indexes
                if any(low <= passed.first + index <= high for low, high in new)
            ]
            if len(indexes) >= count:
                return Last(passed.stream_sequence, indexes[-count], 0, last)
            count -= len(indexes)
        beyond, step = at, min(step * 2, LAST_STEP)
        await report(last + 1 - beyond, last + 1 - first)
    return Last(first, 0, 0, last)


async def find_last_in_order(
    history: History, count: int, selection: Selection, until_ns: int | None, report: Report
) -> Last:
    """As `find_last`, for filters that must see every event once and in order.

    Reads the whole stream; ``selection`` is used up. The stream's own filters then see the same
    events again, from the beginning.
    """
    first, last = await history.bounds()
    continuity = Continuity()
    total, at = 0, first
    while at <= last and (batches := (await history.fetch(at)).batches):
        for batch in batches:
            if batch.stream_sequence <= last:
                skip = continuity.check(batch)
                total += len(await _passing(batch, skip, selection, until_ns))
        at = batches[-1].stream_sequence + 1
        await report(min(at, last + 1) - first, last + 1 - first)
    return Last(first, 0, max(0, total - count), last)


async def _read(
    history: History, at: int, beyond: int, selection: Selection, until_ns: int | None
) -> list[_Passed]:
    found: list[_Passed] = []
    while at < beyond:
        batches = [
            batch
            for batch in (await history.fetch(at, beyond - at)).batches
            if batch.stream_sequence < beyond
        ]
        if not batches:
            break
        found += [
            _Passed(
                batch.stream_sequence,
                (batch.node_name, batch.boot_id),
                batch.first_sequence,
                batch.last_sequence,
                await _passing(batch, 0, selection, until_ns),
            )
            for batch in batches
            if batch.payloads and selection.chooses(batch.node_name)
        ]
        at = batches[-1].stream_sequence + 1
    return found


async def _passing(
    batch: Batch, skip: int, selection: Selection, until_ns: int | None
) -> list[int]:
    indexes = await selection.passing(batch, skip)
    if until_ns is None:
        return indexes
    return [n for n in indexes if encoded.event_time_ns(batch.payloads[n]) <= until_ns]


def add_range(ranges: Ranges, first: int, last: int) -> Ranges:
    """Add ``first`` to ``last`` to ``ranges``; return the parts that were not there."""
    new = [(first, last)]
    for low, high in ranges:
        parts = ((begin, min(end, low - 1), max(begin, high + 1), end) for begin, end in new)
        new = [
            part
            for begin, end, after, behind in parts
            for part in ((begin, end), (after, behind))
            if part[0] <= part[1]
        ]
    joined: Ranges = []
    for low, high in sorted([*ranges, *new]):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    ranges[:] = joined
    return new
