"""Losses: counted where they happen, collected by cause, sent with every batch and logged.

If no event is due, totals that changed are sent in a batch without events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from struct import Struct
from typing import Protocol

import structlog

from collector.sensors.base import Sensor
from tetra.v1.node_pb2 import LossCounters

_INDEX = Struct("<I")

Count = Callable[[], int]

log = structlog.get_logger()


class LossMap(Protocol):
    """The kernel's map of lost records by slot; see `BpfMap`."""

    def lookup(self, key: bytes) -> bytes | None:
        """Return the counters of all CPUs, one after the other, or None."""


class Losses:
    """Totals by cause since the probes were attached."""

    def __init__(
        self,
        lost: LossMap,
        sensors: Iterable[Sensor],
        counts: Mapping[str, Count],
        noted: Callable[[LossCounters], None],
        continued: LossCounters | None = None,
        more: Callable[[], Mapping[str, int]] = dict,
        withheld: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """``counts``: by cause, what this collector counts itself; the map counts for the sensors.

        ``more`` returns totals with changing causes, such as those of policies; ``withheld`` the
        events that throttling withheld, by kind: not a loss, but reported in the same way.

        ``noted`` is called with new totals before a batch carries them. ``continued``: the totals
        of the collector that had these probes before.
        """
        self._lost = lost
        self._slots = {cause: slots for sensor in sensors for cause, slots in sensor.losses.items()}
        self._counts = counts
        self._noted = noted
        before = continued.by_cause if continued else {}
        self._more = more
        self._before = {cause: count for cause, count in before.items() if cause not in self._slots}
        self._withheld = withheld
        # The kernel's totals of the probes continue with them; those of policies start again.
        kept = continued.withheld if continued else {}
        self._withheld_before = {kind: n for kind, n in kept.items() if kind.startswith("policy:")}
        self._counters = LossCounters()
        self._reported = LossCounters()
        if continued:
            self._reported.CopyFrom(continued)

    def counters(self) -> LossCounters:
        """Return the totals as last read by `refresh`."""
        return self._counters

    def refresh(self) -> bool:
        """Read all counters; log and note them if they changed, and return whether they did."""
        totals = {cause: self._kernel(slots) for cause, slots in self._slots.items()}
        own = {cause: count() for cause, count in self._counts.items()} | dict(self._more())
        for cause in {**self._before, **own}:
            before = self._before.get(cause, 0)
            totals[cause] = totals.get(cause, 0) + before + own.get(cause, 0)
        withheld = Counter(self._withheld_before)
        withheld.update(self._withheld())
        self._counters = LossCounters(
            by_cause={k: n for k, n in totals.items() if n}, withheld=withheld
        )
        if self._counters == self._reported:
            return False
        if self._counters.by_cause != self._reported.by_cause:
            log.warning("events lost", **self._counters.by_cause)
        if self._counters.withheld != self._reported.withheld:
            log.info("events withheld by throttling", **self._counters.withheld)
        self._noted(self._counters)
        self._reported.CopyFrom(self._counters)
        return True

    def _kernel(self, slots: tuple[int, ...]) -> int:
        total = 0
        for slot in slots:
            value = self._lost.lookup(_INDEX.pack(slot)) or b""
            total += sum(
                int.from_bytes(value[at : at + 8], "little") for at in range(0, len(value), 8)
            )
        return total
