"""Proves that a node's events are complete, or reports what is missing: by numbers and counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cachetools import LRUCache

from eventstream import encoded
from eventstream.batch import Batch
from eventstream.notices import Notices
from tetra.v1 import node_pb2, stream_pb2

_MAX_SERIES = 10_000  # nodes and boots, remembered per stream
_MAX_GAPS = 64  # remembered per node, for batches that come late


@dataclass(slots=True)
class _Series:
    """What came from one node in one boot."""

    first: int
    last: int
    stream_sequence: int  # message that the last event was in
    stored_ns: int
    last_event: bytes
    probes_start_ns: int
    loss: node_pb2.LossCounters
    shared: bool = False  # another host was found to use the node's name
    gaps: list[tuple[int, int]] = field(default_factory=list)  # first, last

    @property
    def last_event_ns(self) -> int:
        """Time of the last event; when NATS stored it, where it has none."""
        return encoded.event_time_ns(self.last_event) or self.stored_ns


@dataclass(slots=True)
class Continuity:
    """Follows the batches of one stream of events, in order."""

    notices: Notices = field(default_factory=Notices)
    # Bounded: the least recently used are forgotten, and begin again.
    _series: LRUCache[tuple[str, str], _Series] = field(
        default_factory=lambda: LRUCache(_MAX_SERIES)
    )
    _boots: LRUCache[str, str] = field(default_factory=lambda: LRUCache(_MAX_SERIES))
    _damage: list[tuple[int, int]] = field(default_factory=list)  # missing messages

    def note_damage(self, first: int, last: int, from_ns: int, to_ns: int) -> None:
        """Note that messages ``first`` to ``last`` are missing in the stream; 0: unknown.

        The times are those at which NATS stored the messages around them, 0 if unknown.
        """
        notice = stream_pb2.GapNotice(
            cause=stream_pb2.GapNotice.CAUSE_STREAM_DAMAGED,
            count=last - first + 1 if first else 0,
            first=first,
            last=last,
        )
        if from_ns and to_ns:
            getattr(notice, "from").FromNanoseconds(from_ns)
            notice.to.FromNanoseconds(to_ns)
        self.notices.add_gap(notice)
        self._damage = [*self._damage[-_MAX_GAPS:], (first, last)]

    def note_aged_out(self, count: int, first: Batch | None = None) -> None:
        """Note that the stream dropped ``count`` messages for their age; ``first``: its oldest."""
        notice = stream_pb2.GapNotice(
            cause=stream_pb2.GapNotice.CAUSE_AGED_OUT, count=max(0, count)
        )
        if first is not None:
            notice.to.FromNanoseconds(first.stored_ns)
        self.notices.add_gap(notice)

    def check(self, batch: Batch) -> int:
        """Note what is missing before ``batch``; return how many of its events are duplicates.

        JetStream drops a batch that is published twice within its window of two minutes; this
        finds the later ones.
        """
        if not batch.node_name:
            self._note_malformed(batch, [batch.stream_sequence])
            return 0
        if batch.malformed:
            self._note_malformed(batch, batch.malformed)
        key = (batch.node_name, batch.boot_id)
        seen = self._series.get(key)
        if seen is None:
            earlier = self._series.get((batch.node_name, self._boots.get(batch.node_name, "")))
            if earlier is not None:
                self._note_collector_down(batch, earlier)
            self._begin(key, batch)
            return 0
        self._check_name(batch, seen)
        if batch.probes_start_ns > seen.probes_start_ns:
            self._note_collector_down(batch, seen)
            seen.probes_start_ns = batch.probes_start_ns
            seen.loss = node_pb2.LossCounters()
        self._compare_losses(batch, seen)
        return self._compare_numbers(batch, seen)

    def _begin(self, key: tuple[str, str], batch: Batch) -> None:
        self._boots[batch.node_name] = batch.boot_id
        self._series[key] = _Series(
            batch.first_sequence,
            batch.last_sequence,
            batch.stream_sequence,
            batch.stored_ns,
            batch.payloads[-1] if batch.payloads else b"",
            batch.probes_start_ns,
            batch.loss,
        )

    # What a collector publishes of an earlier boot of its host is older than its own probes.
    def _check_name(self, batch: Batch, seen: _Series) -> None:
        newer = self._series.get((batch.node_name, self._boots.get(batch.node_name, "")))
        if newer is None or newer is seen or newer.shared or not batch.payloads:
            return
        last_ns = encoded.event_time_ns(batch.payloads[-1])
        if last_ns > newer.probes_start_ns:
            newer.shared = True
            cause = stream_pb2.GapNotice.CAUSE_NAME_SHARED
            self.notices.add_gap(_gap(batch, cause, newer.probes_start_ns, last_ns))

    def _compare_numbers(self, batch: Batch, seen: _Series) -> int:
        first, last = batch.first_sequence, batch.last_sequence
        if first <= seen.last:
            return self._duplicates(batch, seen) if batch.payloads else 0
        if first > seen.last + 1:
            self._note_gap(batch, seen)
            seen.gaps = [*seen.gaps[-_MAX_GAPS:], (seen.last + 1, first - 1)]
        seen.last = last
        seen.stream_sequence = batch.stream_sequence
        seen.stored_ns = batch.stored_ns
        if batch.payloads:
            seen.last_event = batch.payloads[-1]
        return 0

    def _duplicates(self, batch: Batch, seen: _Series) -> int:
        """Return how many events of a batch that does not continue the series were seen before."""
        first, last = batch.first_sequence, batch.last_sequence
        gap = next((g for g in seen.gaps if g[0] <= first and last <= g[1]), None)
        if gap is not None:  # late, and no duplicate
            seen.gaps.remove(gap)
            rest = [(gap[0], first - 1), (last + 1, gap[1])]
            seen.gaps += [part for part in rest if part[0] <= part[1]]
            return 0
        if last < seen.first:  # from before this stream of events began
            return 0
        duplicates = min(seen.last, last) - first + 1
        seen.last = max(seen.last, last)
        return duplicates

    # Dated by the events around it: a batch may have waited long before NATS stored it.
    def _note_gap(self, batch: Batch, seen: _Series) -> None:
        damaged = any(
            seen.stream_sequence < at and upto < batch.stream_sequence for at, upto in self._damage
        )
        to_ns = encoded.event_time_ns(batch.payloads[0]) if batch.payloads else 0
        notice = _gap(
            batch,
            stream_pb2.GapNotice.CAUSE_STREAM_DAMAGED
            if damaged
            else stream_pb2.GapNotice.CAUSE_MISSING_SEQUENCE,
            seen.last_event_ns,
            to_ns or batch.stored_ns,
        )
        notice.first, notice.last = seen.last + 1, batch.first_sequence - 1
        notice.count = notice.last - notice.first + 1
        self.notices.add_gap(notice)

    def _compare_losses(self, batch: Batch, seen: _Series) -> None:
        if batch.loss == seen.loss:
            return
        more = node_pb2.LossCounters(
            by_cause=_increase(batch.loss.by_cause, seen.loss.by_cause),
            withheld=_increase(batch.loss.withheld, seen.loss.withheld),
        )
        if not more.by_cause and not more.withheld:
            return
        last_ns = encoded.event_time_ns(batch.payloads[-1]) if batch.payloads else 0
        notice = stream_pb2.LossNotice(
            node_name=batch.node_name,
            boot_id=batch.boot_id,
            lost=more,
        )
        notice.time.FromNanoseconds(last_ns or batch.stored_ns)
        self.notices.add_loss(notice, seen.last_event_ns, last_ns or batch.stored_ns)
        seen.loss = batch.loss

    def _note_collector_down(self, batch: Batch, seen: _Series) -> None:
        # The next collector publishes the events that a killed one left: they are later than the
        # gap's start.
        from_ns = min(seen.last_event_ns, batch.probes_start_ns)
        cause = stream_pb2.GapNotice.CAUSE_COLLECTOR_DOWN
        self.notices.add_gap(_gap(batch, cause, from_ns, batch.probes_start_ns))

    def _note_malformed(self, batch: Batch, numbers: list[int]) -> None:
        cause = stream_pb2.GapNotice.CAUSE_MALFORMED
        notice = _gap(batch, cause, batch.stored_ns, batch.stored_ns)
        notice.count, notice.first, notice.last = len(numbers), numbers[0], numbers[-1]
        self.notices.add_gap(notice)


def _increase(counts: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {
        name: count - before.get(name, 0)
        for name, count in counts.items()
        if count > before.get(name, 0)
    }


def _gap(
    batch: Batch, cause: stream_pb2.GapNotice.Cause.ValueType, from_ns: int, to_ns: int
) -> stream_pb2.GapNotice:
    notice = stream_pb2.GapNotice(cause=cause, node_name=batch.node_name)
    getattr(notice, "from").FromNanoseconds(from_ns)
    notice.to.FromNanoseconds(to_ns)
    return notice
