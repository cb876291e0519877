"""The events that a sink gets: nodes, filters, and a rate limit that counts what it withholds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from bus.subjects import message_id
from eventfilters import Event
from eventstream.batch import Batch
from exporter.config import Common
from tetragon.events_pb2 import GetEventsResponse

_MINUTE_NS = 60_000_000_000


class Selected(NamedTuple):
    """One event for a sink."""

    id: str  # the same whenever the event is exported: node, boot and number of the event
    time_ns: int  # the event's; when NATS stored it, where it has none
    message: GetEventsResponse
    # Where it is in the stream; None: the exporter's own report.
    batch: Batch | None = None
    at: int = 0


class RateLimit:
    """Passes a number of events per minute, as Tetragon's export does, and counts the others.

    The time is that at which NATS stored the events: so events that waited for the receiver are not
    withheld, and a restart gives the same result.
    """

    def __init__(self, per_minute: int, saved: dict[str, Any]) -> None:
        self._per_minute = per_minute
        self._minute = int(saved.get("minute", 0))
        self._passed = int(saved.get("passed", 0))
        self.withheld = int(saved.get("withheld", 0))  # of this minute
        self.withheld_total = 0

    def state(self) -> dict[str, Any]:
        """Return the state that a later exporter gets as ``saved``."""
        if self._per_minute < 0:
            return {}
        return {"minute": self._minute, "passed": self._passed, "withheld": self.withheld}

    def passes(self) -> bool:
        """Count one event; return whether it passes."""
        if self._per_minute < 0:
            return True
        if self._passed < self._per_minute:
            self._passed += 1
            return True
        self.withheld += 1
        self.withheld_total += 1
        return False

    def advance(self, time_ns: int) -> int:
        """Advance to ``time_ns``; return how many were withheld in the minute that ended."""
        minute = time_ns // _MINUTE_NS
        if self._per_minute < 0 or minute <= self._minute:
            return 0
        withheld, self._minute, self._passed, self.withheld = self.withheld, minute, 0, 0
        return withheld


@dataclass(slots=True)
class Counts:
    """Totals of one sink since this exporter started."""

    read: int = 0
    filtered: int = 0
    malformed: int = 0
    duplicates: int = 0


class Selection:
    """Applies the settings of one sink to batches."""

    def __init__(self, sink: Common, limit: RateLimit, own_node: str) -> None:
        self._nodes = frozenset(sink.nodes)
        self._filters = sink.filters()
        self._limit = limit
        self._own_node = own_node
        self.counts = Counts()

    def select(self, batches: Iterable[tuple[Batch, int]]) -> Iterator[Selected]:
        """Yield the sink's events of ``batches``, each without the given number of first events."""
        filters, counts, limit = self._filters, self.counts, self._limit
        for batch, skip in batches:
            withheld = limit.advance(batch.stored_ns)
            if withheld:
                yield self.report(withheld, batch.stored_ns)
            counts.duplicates += skip
            if self._nodes and batch.node_name not in self._nodes:
                continue
            counts.read += len(batch.payloads) - skip
            counts.malformed += len(batch.malformed)
            for index, event in enumerate(batch.events()):
                if index < skip or not batch.payloads[index]:
                    continue
                message = event.message if filters.pass_all else filters.apply_parsed(event)
                if message is None:
                    counts.filtered += 1
                elif limit.passes():
                    yield _selected(batch, index, event, message)

    def report(self, withheld: int, time_ns: int) -> Selected:
        """Return the event that reports how many the rate limit withheld."""
        message = GetEventsResponse(node_name=self._own_node)
        message.rate_limit_info.number_of_dropped_process_events = withheld
        message.time.FromNanoseconds(time_ns)
        return Selected(f"rate-limit:{time_ns}", time_ns, message)


def _selected(batch: Batch, index: int, event: Event, message: GetEventsResponse) -> Selected:
    number = batch.first_sequence + index
    time = message.time
    time_ns = time.seconds * 1_000_000_000 + time.nanos or batch.stored_ns
    id_ = message_id(batch.node_name, batch.boot_id, number)
    return Selected(id_, time_ns, message, batch, index)
