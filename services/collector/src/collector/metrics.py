"""Metrics of the collector; Tetragon's names where the meaning is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from collector import throttle_metrics
from collector.delivery.publisher import Publisher
from collector.delivery.statistics import LATENCY_BOUNDS_S
from collector.losses import Losses
from collector.pipeline import Pipeline
from collector.policies.manager import PolicyManager
from collector.processes.table import ProcessTable
from collector.sensors import tracing_metrics
from collector.sensors.tracing import TracingStatistics
from collector.throttle import Throttle


class Metrics(Collector):
    """Reads the collector's state when Prometheus asks."""

    def __init__(
        self,
        pipeline: Pipeline,
        table: ProcessTable,
        publisher: Publisher,
        losses: Losses,
        connected: Callable[[], bool],
        older: int = 0,
        policies: PolicyManager | None = None,
        tracing: TracingStatistics | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        """``older``: events made of processes that ran before the probes."""
        self._pipeline = pipeline
        self._cache = table
        self._older = older
        self._publisher = publisher
        self._losses = losses
        self._connected = connected
        self._policies = policies
        self._tracing = tracing
        self._throttle = throttle

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its current value."""
        build = GaugeMetricFamily("tetragon_build_info", "Build", labels=["version"])
        build.add_metric([version("tetra-collector")], 1)
        yield build
        yield from self._kernel()
        yield from self._table()
        yield from self._bus()
        if self._policies is not None and self._tracing is not None:
            yield from tracing_metrics.collect(self._policies, self._tracing)
        if self._throttle is not None and self._throttle.is_on:
            yield from throttle_metrics.collect(self._throttle, self._losses)

    def _kernel(self) -> Iterator[Metric]:
        passed = self._pipeline.statistics
        events = CounterMetricFamily("tetragon_events", "Events created, by type", labels=["type"])
        records = CounterMetricFamily(
            "tetragon_msg_op", "Records read from the kernel, by kind", labels=["msg_op"]
        )
        for count in passed.kinds.values():
            kind = count.kind
            if kind.event:
                older = self._older if kind.event == "PROCESS_EXEC" else 0
                events.add_metric([kind.event], count.events + older)
            if kind.operation:
                records.add_metric([kind.operation], count.records)
        if self._tracing is not None:
            for name, operation, number in tracing_metrics.records(self._tracing):
                events.add_metric([name], number)
                records.add_metric([operation], number)
        yield events
        yield records
        yield from self._losses_of_kernel()
        yield CounterMetricFamily(
            "tetragon_observer_ringbuf_events_received",
            "Records read from the ring buffer",
            sum(count.records for count in passed.kinds.values()),
        )
        yield CounterMetricFamily(
            "tetragon_observer_ringbuf_errors",
            "Records of an unknown kind, and malformed ones",
            passed.malformed + passed.unknown,
        )

    def _losses_of_kernel(self) -> Iterator[Metric]:
        lost = self._losses.counters().by_cause
        missed = CounterMetricFamily(
            "tetragon_bpf_missed_events",
            "Records that the ring buffer had no room for",
            labels=["msg_op", "error"],
        )
        total = 0
        for count in self._pipeline.statistics.kinds.values():
            if count.kind.operation:
                number = lost.get(f"kernel_{count.kind.name}", 0)
                missed.add_metric([count.kind.operation, "ENOSPC"], number)
                total += number
        yield missed
        yield CounterMetricFamily(
            "tetra_collector_process_map_overflows",
            "Processes that did not fit into the kernel's process map",
            lost.get("kernel_map", 0),
        )
        yield CounterMetricFamily(
            "tetragon_observer_ringbuf_events_lost",
            "Records that did not fit into the ring buffer",
            total,
        )
        causes = CounterMetricFamily(
            "tetra_collector_lost_events", "Losses of every kind, by cause", labels=["cause"]
        )
        for cause, number in lost.items():
            causes.add_metric([cause], number)
        yield causes

    def _table(self) -> Iterator[Metric]:
        cache = self._cache
        yield GaugeMetricFamily(
            "tetragon_process_cache_size", "Process images in the table", len(cache)
        )
        yield GaugeMetricFamily(
            "tetragon_process_cache_capacity",
            "Capacity of the process table, in images",
            cache.capacity,
        )
        yield CounterMetricFamily(
            "tetragon_process_cache_evictions",
            "Process images dropped from the full table while alive",
            cache.statistics.evictions,
        )
        misses = CounterMetricFamily(
            "tetragon_process_cache_misses",
            "Lookups of images that are not in the table",
            labels=["operation"],
        )
        misses.add_metric(["remove"], cache.statistics.misses)
        yield misses

    def _bus(self) -> Iterator[Metric]:
        statistics = self._publisher.statistics
        gauges = {
            "connected": ("Whether there is a connection to NATS", self._connected()),
            "spool_events": ("Events that NATS has not acknowledged", self._publisher.waiting),
            "spool_bytes": (
                "Memory and disk space of these events, in bytes",
                self._publisher.waiting_bytes,
            ),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"tetra_collector_{name}", text, value)
        counters = {
            "published_events": ("Events that NATS acknowledged", statistics.published),
            "published_batches": ("Messages that NATS acknowledged", statistics.batches),
            "publish_retries": ("Attempts to publish that failed", statistics.retries),
            "dropped_events": (
                "Events that the full spool dropped",
                self._losses.counters().by_cause.get("spool", 0),
            ),
            "cut_events": ("Events trimmed to the largest message of NATS", statistics.trimmed),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"tetra_collector_{name}", text, value)
        total, buckets = 0, []
        for bound, count in zip(
            (*map(str, LATENCY_BOUNDS_S), "+Inf"), statistics.latency, strict=True
        ):
            total += count
            buckets.append((bound, total))
        yield HistogramMetricFamily(
            "tetra_collector_publish_seconds",
            "Time from sending a batch to its acknowledgement",
            buckets=buckets,
            sum_value=statistics.latency_s,
        )
