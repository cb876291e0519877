"""What was lost, counted where it happens, and told: in batches always, in the log at intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct

import structlog

from collector.bpf.maps import BpfMap
from collector.delivery.publisher import PublisherStatistics
from collector.delivery.spool import SpoolStatistics
from collector.processes.cache import ProcessCache
from tetra.v1.node_pb2 import LossCounters

# enum loss of maps.h
_EXEC, _FORK, _EXIT, _DATA, _PROCESS = range(5)
_INDEX = Struct("<I")

log = structlog.get_logger()


@dataclass(slots=True)
class Losses:
    """Totals since the probes were attached."""

    lost: BpfMap
    cache: ProcessCache
    publisher: PublisherStatistics
    spool: SpoolStatistics
    told: Callable[[LossCounters], None] = lambda _counters: None  # before a batch carries them
    _spool_before: int = 0
    _counters: LossCounters = field(default_factory=LossCounters)
    _told: LossCounters = field(default_factory=LossCounters)

    def counters(self) -> LossCounters:
        """Return the totals as last read by `refresh`."""
        return self._counters

    def go_on(self, before: LossCounters) -> None:
        """Count on from what a collector told that had these probes before."""
        self._spool_before = before.by_cause.get("spool", 0)
        self.cache.statistics.evictions = before.by_cause.get("table_evictions", 0)
        self._told.CopyFrom(before)

    def refresh(self) -> None:
        """Read the kernel's counters and tell what is new."""
        counts = {
            "kernel_exec": self._kernel(_EXEC) + self._kernel(_DATA),
            "kernel_fork": self._kernel(_FORK),
            "kernel_exit": self._kernel(_EXIT),
            "kernel_map": self._kernel(_PROCESS),
            "table_evictions": self.cache.statistics.evictions,
            "spool": self._spool_before + self.publisher.dropped + self.spool.dropped,
        }
        self._counters = LossCounters(by_cause={k: n for k, n in counts.items() if n})
        if self._counters != self._told:
            log.warning("events lost", **self._counters.by_cause)
            self.told(self._counters)
            self._told.CopyFrom(self._counters)

    def _kernel(self, slot: int) -> int:
        value = self.lost.lookup(_INDEX.pack(slot)) or b""
        return sum(int.from_bytes(value[at : at + 8], "little") for at in range(0, len(value), 8))
