"""Proves that a node's events are whole, or tells what is missing: from numbers and counters."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from gateway.batch import Batch
from tetra.v1 import node_pb2, stream_pb2

_MAX_SERIES = 10_000  # nodes and boots remembered per stream
_MAX_HOLES = 64  # remembered per node, for batches that come late
_LOSSES = [field.name for field in node_pb2.LossCounters.DESCRIPTOR.fields]


@dataclass(slots=True)
class _Series:
    """What was seen of one node in one boot."""

    first: int
    last: int
    stored_ns: int
    collector_start_ns: int
    loss: node_pb2.LossCounters
    holes: list[tuple[int, int]] = field(default_factory=list)  # first, last


@dataclass(slots=True)
class Continuity:
    """Follows the batches of one stream of events, in order."""

    losses: list[stream_pb2.LossNotice] = field(default_factory=list)
    gaps: list[stream_pb2.GapNotice] = field(default_factory=list)
    _series: OrderedDict[tuple[str, str], _Series] = field(default_factory=OrderedDict)
    _boots: dict[str, str] = field(default_factory=dict)

    def check(self, batch: Batch) -> int:
        """Note what is missing before ``batch``; return how many of its events came already.

        JetStream drops a batch that is published twice within its window of two minutes; this
        drops the later ones.
        """
        if not batch.node_name:
            return 0
        key = (batch.node_name, batch.boot_id)
        seen = self._series.get(key)
        if seen is None:
            earlier = self._series.get((batch.node_name, self._boots.get(batch.node_name, "")))
            if earlier is not None:
                self._collector_was_down(batch, earlier)
            self._boots[batch.node_name] = batch.boot_id
            self._series[key] = _Series(
                batch.first_sequence,
                batch.last_sequence,
                batch.stored_ns,
                batch.collector_start_ns,
                batch.loss,
            )
            if len(self._series) > _MAX_SERIES:
                self._series.popitem(last=False)
            return 0
        if batch.collector_start_ns > seen.collector_start_ns:
            self._collector_was_down(batch, seen)
            seen.collector_start_ns = batch.collector_start_ns
            seen.loss = node_pb2.LossCounters()
        self._compare_losses(batch, seen)
        return self._compare_numbers(batch, seen)

    def take(self) -> tuple[list[stream_pb2.LossNotice], list[stream_pb2.GapNotice]]:
        """Return the notices since the last call."""
        losses, gaps = self.losses, self.gaps
        self.losses, self.gaps = [], []
        return losses, gaps

    def _compare_numbers(self, batch: Batch, seen: _Series) -> int:
        first, last = batch.first_sequence, batch.last_sequence
        if first <= seen.last:
            hole = next((h for h in seen.holes if h[0] <= first and last <= h[1]), None)
            if hole is not None:  # late, not twice
                seen.holes.remove(hole)
                rest = [(hole[0], first - 1), (last + 1, hole[1])]
                seen.holes += [part for part in rest if part[0] <= part[1]]
                return 0
            if last < seen.first:  # from before this stream of events began
                return 0
            twice = min(seen.last, last) - first + 1
            seen.last = max(seen.last, last)
            return twice
        if first > seen.last + 1:
            notice = self._gap(batch, stream_pb2.GapNotice.CAUSE_MISSING_SEQUENCE, seen.stored_ns)
            notice.count = first - seen.last - 1
            seen.holes = [*seen.holes[-_MAX_HOLES:], (seen.last + 1, first - 1)]
        seen.last = last
        seen.stored_ns = batch.stored_ns
        return 0

    def _compare_losses(self, batch: Batch, seen: _Series) -> None:
        if batch.loss == seen.loss:
            return
        lost = {
            name: getattr(batch.loss, name) - getattr(seen.loss, name)
            for name in _LOSSES
            if getattr(batch.loss, name) > getattr(seen.loss, name)
        }
        if lost:
            notice = stream_pb2.LossNotice(
                node_name=batch.node_name,
                boot_id=batch.boot_id,
                lost=node_pb2.LossCounters(**lost),
            )
            notice.time.FromNanoseconds(batch.stored_ns)
            self.losses.append(notice)
            seen.loss = batch.loss

    def _collector_was_down(self, batch: Batch, seen: _Series) -> None:
        notice = self._gap(batch, stream_pb2.GapNotice.CAUSE_COLLECTOR_DOWN, seen.stored_ns)
        notice.to.FromNanoseconds(batch.collector_start_ns)

    def _gap(
        self, batch: Batch, cause: stream_pb2.GapNotice.Cause.ValueType, from_ns: int
    ) -> stream_pb2.GapNotice:
        notice = stream_pb2.GapNotice(cause=cause, node_name=batch.node_name)
        getattr(notice, "from").FromNanoseconds(from_ns)
        notice.to.FromNanoseconds(batch.stored_ns)
        self.gaps.append(notice)
        return notice
