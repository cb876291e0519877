"""Metrics of tracing policies, under the names that Tetragon has for the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from collector.policies.entry import Entry, State
from collector.policies.manager import PolicyManager
from collector.policies.report import describe
from collector.sensors.tracing import OPERATIONS, TracingStatistics

# As Tetragon exports them, those without a policy too.
_STATES = (
    State.DISABLED, State.ENABLED, State.ERROR, State.LOAD_ERROR, State.PARTIALLY_ENABLED,
    State.SKIPPED,
)  # fmt: skip
_POLICY = ("policy", "policy_namespace")
# Label of Tetragon's metric -> field of `SelectorCounters`.
_ACTIONS = {
    "post": "posted", "nopost": "not_posted", "signal": "signal",
    "monitor_signal": "monitor_signal", "override": "override",
    "monitor_override": "monitor_override", "notify_enforcer": "notify",
    "monitor_notify_enforcer": "monitor_notify", "set": "set", "monitor_set": "monitor_set",
}  # fmt: skip


def collect(manager: PolicyManager, statistics: TracingStatistics) -> Iterator[Metric]:
    """Yield the metrics of all policies."""
    entries = manager.entries
    yield _loaded(entries, len(manager.refused))
    yield _events(statistics)
    yield _inactive(manager)
    yield _requests(statistics)
    yield from _kernel(entries)
    yield from _selectors(entries)


def records(statistics: TracingStatistics) -> Iterator[tuple[str, str, int]]:
    """Return event type, operation code and number of each kind of event."""
    for kind, operation in OPERATIONS.items():
        yield kind.value.upper(), operation, statistics.kinds[kind]


def _loaded(entries: list[Entry], refused: int) -> Metric:
    loaded = GaugeMetricFamily(
        "tetragon_tracingpolicy_loaded", "Tracing policies, by state", labels=["state"]
    )
    counted = Counter(entry.state for entry in entries)
    counted[State.LOAD_ERROR] += refused
    for state in _STATES:
        loaded.add_metric([state.name.lower()], counted[state])
    return loaded


def _events(statistics: TracingStatistics) -> Metric:
    events = CounterMetricFamily(
        "tetragon_policy_events", "Events of policies, by hook", labels=["policy", "hook"]
    )
    for labels, number in sorted(statistics.events.items()):
        events.add_metric(labels, number)
    return events


def _inactive(manager: PolicyManager) -> Metric:
    inactive = CounterMetricFamily(
        "tetra_collector_policy_inactive_seconds",
        "Seconds in which a policy reported nothing because no collector ran",
        labels=_POLICY,
    )
    for labels, seconds in sorted(manager.table.inactive_s.items()):
        inactive.add_metric(labels, seconds)
    return inactive


def _requests(statistics: TracingStatistics) -> Metric:
    requests = CounterMetricFamily(
        "tetra_collector_policy_requests", "Requests of GetUrl and DnsLookup", labels=["result"]
    )
    for result, number in asdict(statistics.requests).items():
        requests.add_metric([result], number)
    return requests


def _kernel(entries: list[Entry]) -> Iterator[Metric]:
    memory = GaugeMetricFamily(
        "tetragon_tracingpolicy_kernel_memory_bytes",
        "Memory of a policy's programs and maps",
        labels=_POLICY,
    )
    lost = CounterMetricFamily(
        "tetra_collector_policy_lost_records",
        "Records of a policy that were lost, by reason",
        labels=[*_POLICY, "reason"],
    )
    missed = CounterMetricFamily(
        "tetragon_missed_prog_probes",
        "Runs of a policy's programs that the kernel skipped",
        labels=["policy"],
    )
    runs = CounterMetricFamily(
        "tetragon_overhead_program_runs",
        "Runs of a policy's programs, while kernel.bpf_stats_enabled is on",
        labels=_POLICY,
    )
    seconds = CounterMetricFamily(
        "tetragon_overhead_program_seconds",
        "Time in a policy's programs, while kernel.bpf_stats_enabled is on",
        labels=_POLICY,
    )
    sampled = GaugeMetricFamily(
        "tetra_collector_policy_sampled_system_calls",
        "Ordinary system calls that are so frequent that a policy follows them by samples",
        labels=_POLICY,
    )
    for entry in entries:
        counters = entry.counters()
        labels = [entry.identity.name, entry.identity.namespace]
        if counters.sampled_calls:
            sampled.add_metric(labels, counters.sampled_calls)
        memory.add_metric(labels, counters.memory_bytes)
        for reason, number in sorted(counters.lost.items()):
            lost.add_metric([*labels, reason], number)
        missed.add_metric(labels[:1], counters.missed)
        runs.add_metric(labels, counters.runs)
        seconds.add_metric(labels, counters.run_time_ns / 1e9)
    yield from (memory, lost, missed, runs, seconds, sampled)


def _selectors(entries: list[Entry]) -> Iterator[Metric]:
    names = (*_POLICY, "hook", "hook_index", "selector_index", "selector_label")
    actions = CounterMetricFamily(
        "tetragon_tracingpolicy_selector_actions",
        "Actions of a policy's selectors",
        labels=[*names, "action"],
    )
    limited = CounterMetricFamily(
        "tetra_collector_policy_rate_limited", "Calls that a rate limit suppressed", labels=names
    )
    left_out = CounterMetricFamily(
        "tetra_collector_policy_actions_left_out",
        "Actions that were not carried out in mode enforce: the process is spared, or the kernel "
        "refused",
        labels=[*names, "reason"],
    )
    missed = CounterMetricFamily(
        "tetragon_enforcer_missed_notifications",
        "Notifications that reached no enforcer",
        labels=["policy", "info", "reason"],
    )
    filtered = CounterMetricFamily(
        "tetra_collector_policy_filtered", "Calls that no selector matched", labels=_POLICY
    )
    notifications = Counter[tuple[str, str, str]]()
    for entry in entries:
        labels = [entry.identity.name, entry.identity.namespace]
        counters = entry.counters()
        filtered.add_metric(labels, counters.filtered)
        hooks = entry.hooks()
        for (place, selector), counted in sorted(counters.selectors.items()):
            if place >= len(hooks):
                continue
            hook = hooks[place]
            label = hook.selectors[selector].label if selector < len(hook.selectors) else ""
            of = [*labels, describe(hook), str(hook.index), str(selector), label]
            for action, field in _ACTIONS.items():
                if number := getattr(counted, field):
                    actions.add_metric([*of, action], number)
            if counted.rate_limited:
                limited.add_metric(of, counted.rate_limited)
            for reason, number in (("spared", counted.spared), ("failed", counted.failed)):
                if number:
                    left_out.add_metric([*of, reason], number)
            for reason, number in (
                ("no_action", counted.missed), ("overwritten", counted.overwritten)
            ):  # fmt: skip
                notifications[labels[0], describe(hook), reason] += number
    for names_of, number in sorted(notifications.items()):
        if number:
            missed.add_metric(names_of, number)
    yield from (actions, limited, left_out, missed, filtered)
