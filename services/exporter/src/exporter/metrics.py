"""Metrics of the sinks, and why one does not deliver."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from exporter.worker import Worker

_COUNTERS = {
    "delivered_events": "Events that the sink accepted",
    "delivered_bytes": "Characters of the lines that the sink accepted",
    "refused_events": "Events that the receiver refused permanently",
    "failures": "Delivery attempts that failed and were repeated",
    "filtered_events": "Events that did not pass the sink's filters",
    "withheld_events": "Events that the sink's rate limit withheld",
    "duplicate_events": "Duplicate events of the stream, exported once",
    "missing_events": "Events missing in the stream, as far as their number is known",
    "gaps": "Gaps in the stream",
}


class Metrics(Collector):
    """Collects from the workers when asked."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its current value."""
        families = {
            name: CounterMetricFamily(f"tetra_exporter_{name}", text, labels=["sink"])
            for name, text in _COUNTERS.items()
        }
        lost = CounterMetricFamily(
            "tetra_exporter_lost_events",
            "Events lost at their collectors",
            labels=["sink", "cause"],
        )
        up = GaugeMetricFamily(
            "tetra_exporter_up", "Whether the sink accepts events", labels=["sink"]
        )
        behind = GaugeMetricFamily(
            "tetra_exporter_lag_messages", "Messages of the stream not exported", labels=["sink"]
        )
        lag = GaugeMetricFamily(
            "tetra_exporter_lag_seconds", "Approximate age of the oldest event that is not "
            "exported",
            labels=["sink"],
        )  # fmt: skip
        for worker in self._workers:
            label = [worker.config.name]
            for name, value in _values(worker).items():
                families[name].add_metric(label, value)
            for cause, count in worker.totals.lost.items():
                lost.add_metric([*label, cause], count)
            up.add_metric(label, not worker.fault)
            behind.add_metric(label, worker.reader.behind)
            lag.add_metric(label, lag_s(worker))
        yield from families.values()
        yield from (lost, up, behind, lag)


def lag_s(worker: Worker) -> float:
    """Return the approximate age of the oldest event that the sink does not have; 0: it has all."""
    if not worker.reader.behind or not worker.newest_ns:
        return 0.0
    return max(0.0, time.time() - worker.newest_ns / 1e9)


def _values(worker: Worker) -> dict[str, int]:
    totals, counts = worker.totals, worker.selection.counts
    return {
        "delivered_events": totals.delivered,
        "delivered_bytes": totals.delivered_bytes,
        "refused_events": totals.refused,
        "failures": totals.failures,
        "filtered_events": counts.filtered,
        "withheld_events": worker.limit.withheld_total,
        "duplicate_events": counts.duplicates,
        "missing_events": totals.missing,
        "gaps": totals.gaps,
    }


def find_fault(workers: Sequence[Worker]) -> str:
    """Return which sinks do not accept events and why; empty if all do."""
    return "; ".join(f"{w.config.name}: {w.fault}" for w in workers if w.fault)
