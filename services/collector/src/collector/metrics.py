"""What the collector tells Prometheus: Tetragon's names where the meaning is the same."""

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

from collector.delivery.publisher import LATENCY_BOUNDS_S, Publisher
from collector.losses import Losses
from collector.pipeline import Pipeline

_EXEC, _EXIT, _FORK, _DATA = "5", "7", "23", "24"  # Tetragon's operation codes


class Metrics(Collector):
    """Reads the collector's state when Prometheus asks."""

    def __init__(
        self,
        pipeline: Pipeline,
        publisher: Publisher,
        losses: Losses,
        connected: Callable[[], bool],
    ) -> None:
        self._pipeline = pipeline
        self._publisher = publisher
        self._losses = losses
        self._connected = connected

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it is now."""
        build = GaugeMetricFamily("tetragon_build_info", "Build", labels=["version"])
        build.add_metric([version("tetra-collector")], 1)
        yield build
        yield from self._kernel()
        yield from self._table()
        yield from self._bus()

    def _kernel(self) -> Iterator[Metric]:
        passed = self._pipeline.statistics
        events = CounterMetricFamily("tetragon_events", "Events made, by type", labels=["type"])
        events.add_metric(["PROCESS_EXEC"], passed.execs + passed.older)
        events.add_metric(["PROCESS_EXIT"], passed.exits)
        yield events
        records = CounterMetricFamily(
            "tetragon_msg_op", "Records read from the kernel", labels=["msg_op"]
        )
        for operation, count in (
            (_EXEC, passed.execs), (_EXIT, passed.exits), (_FORK, passed.forks),
        ):  # fmt: skip
            records.add_metric([operation], count)
        yield records
        lost = self._losses.counters().by_cause
        missed = CounterMetricFamily(
            "tetragon_bpf_missed_events", "Records that the ring had no room for",
            labels=["msg_op", "error"],
        )  # fmt: skip
        for operation, count in (
            (_EXEC, lost.get("kernel_exec", 0)), (_EXIT, lost.get("kernel_exit", 0)),
            (_FORK, lost.get("kernel_fork", 0)),
        ):  # fmt: skip
            missed.add_metric([operation, "ENOSPC"], count)
        yield missed
        yield CounterMetricFamily(
            "tetra_collector_process_map_overflows",
            "Processes that the kernel's process map had no room for",
            lost.get("kernel_map", 0),
        )
        yield CounterMetricFamily(
            "tetragon_observer_ringbuf_events_received",
            "Records read from the ring buffer",
            passed.execs + passed.exits + passed.forks,
        )
        yield CounterMetricFamily(
            "tetragon_observer_ringbuf_events_lost",
            "Records that did not fit into the ring buffer",
            sum(lost.get(f"kernel_{kind}", 0) for kind in ("exec", "exit", "fork")),
        )
        yield CounterMetricFamily(
            "tetragon_observer_ringbuf_errors", "Records that could not be read", passed.malformed
        )

    def _table(self) -> Iterator[Metric]:
        cache = self._pipeline.cache
        yield GaugeMetricFamily(
            "tetragon_process_cache_size", "Process images in the table", len(cache)
        )
        yield GaugeMetricFamily(
            "tetragon_process_cache_capacity", "Process images that fit", cache.capacity
        )
        yield CounterMetricFamily(
            "tetragon_process_cache_evictions",
            "Process images that had to go while they were needed",
            cache.statistics.evictions,
        )
        misses = CounterMetricFamily(
            "tetragon_process_cache_misses", "Images looked for in vain", labels=["operation"]
        )
        misses.add_metric(["remove"], cache.statistics.misses)
        yield misses

    def _bus(self) -> Iterator[Metric]:
        statistics = self._publisher.statistics
        gauges = {
            "connected": ("Whether NATS is reached", self._connected()),
            "spool_events": ("Events that NATS has not acknowledged", self._publisher.waiting),
            "spool_bytes": ("The same in bytes", self._publisher.waiting_bytes),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"tetra_collector_{name}", text, value)
        counters = {
            "published_events": ("Events that NATS acknowledged", statistics.published),
            "published_batches": ("Messages that NATS acknowledged", statistics.batches),
            "publish_retries": ("Attempts to publish that failed", statistics.retries),
            "dropped_events": (
                "Events that the spool had no room for",
                self._losses.counters().by_cause.get("spool", 0),
            ),
            "cut_events": ("Events cut to what NATS takes", statistics.cut),
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
            "From sending a batch to its acknowledgement",
            buckets=buckets,
            sum_value=statistics.latency_s,
        )
