"""Metrics of throttling."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from collector.losses import Losses
from collector.throttle import Throttle


def collect(throttle: Throttle, losses: Losses) -> Iterator[Metric]:
    """Yield every metric of throttling."""
    withheld = CounterMetricFamily(
        "tetra_collector_withheld_events",
        "Events that throttling withheld, by kind",
        labels=["kind"],
    )
    kinds = dict(losses.counters().withheld) | throttle.withheld.counts()
    for kind, number in sorted(kinds.items()):
        withheld.add_metric([kind], number)
    yield withheld
    state = throttle.throttled
    rate = CounterMetricFamily(
        "tetragon_cgroup_rate",
        "Cgroups that became throttled, and that ended being throttled",
        labels=["type"],
    )
    rate.add_metric(["throttle_start"], state.started)
    rate.add_metric(["throttle_stop"], state.stopped)
    yield rate
    yield GaugeMetricFamily(
        "tetra_collector_throttled_cgroups", "Cgroups that are throttled now", len(state.cgroups)
    )
    yield CounterMetricFamily(
        "tetra_collector_throttled_processes_found",
        "Long-lived processes whose exec was withheld and that were reported later",
        throttle.reported,
    )
