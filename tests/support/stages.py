"""The collector's stages from record to event, without probes and without a bus."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from collector import running
from collector.clock import wall_offset_ns
from collector.events.encoder import Encoder
from collector.metadata.enricher import Enricher
from collector.pipeline import Pipeline
from collector.processes.procfs import read_all
from collector.processes.table import ProcessTable
from collector.sensors.registry import Parts, PolicyParts, sensors
from collector.sensors.throttle import Throttled

PROCFS = Path("/proc")


class Stages:
    """One of each, made as the collector makes them."""

    def __init__(
        self,
        enricher: Enricher,
        node_name: str = "n",
        cluster_name: str = "",
        policies: PolicyParts | None = None,
        **table: Any,
    ) -> None:
        self.enricher = enricher
        self.encoder = Encoder(node_name, cluster_name, enricher.host_namespaces)
        self.table = ProcessTable(removed=self.encoder.forget, **table)
        self.policies = policies or PolicyParts()
        self.throttled = Throttled()
        parts = Parts(self.table, enricher, self.encoder, self.policies, self.throttled)
        self.pipeline = Pipeline(sensors(parts))

    def handle(self, records: Iterable[bytes], offset_ns: int | None = None) -> list[bytes]:
        """Return the events of ``records``; nothing waits for metadata."""
        return self.pipeline.handle(records, offset_ns) + self.pipeline.release(all_of_them=True)

    def bootstrap(self, known: running.ProcessMap) -> list[bytes]:
        """Enter the processes that run now and return their events."""
        bootstrap = running.Bootstrap(
            self.table, self.enricher, self.encoder, known, PROCFS, wall_offset_ns()
        )
        return bootstrap.run(read_all(PROCFS), (), time.monotonic())

    def snapshot(self) -> list[bytes]:
        """Return an event for each living process."""
        return running.snapshot(self.table, self.encoder)

    def counts(self) -> dict[str, int]:
        """Return the number of records handled, by kind."""
        return {c.kind.name: c.records for c in self.pipeline.statistics.kinds.values()}


class NoMap:
    """In place of the kernel's process map: it accepts everything and holds nothing."""

    def insert(self, _key: bytes, _value: bytes) -> bool:
        """Return True."""
        return True

    def delete(self, _key: bytes) -> bool:
        """Return False."""
        return False


class NothingLost:
    """In place of the kernel's counters of lost records: all are zero."""

    def lookup(self, _key: bytes) -> bytes:
        """Return the counters of two CPUs."""
        return bytes(16)
