"""The metrics of the gateway.

Names are Tetragon's where the meaning is the same, else begin with ``tetra_gateway_``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from eventstream import encoded
from eventstream.batch import Batch
from gateway import health
from gateway.fleet import Fleet
from gateway.policies import metrics as policy_metrics
from gateway.policies.fleet_policies import FleetPolicies
from gateway.streams import Streams
from gateway.version import VERSION
from tetragon import events_pb2

_TYPES = events_pb2.EventType.DESCRIPTOR.values_by_number


class Metrics(Collector):
    """Reads the gateway's state at each scrape."""

    def __init__(
        self, streams: Streams, fleet: Fleet, policies: FleetPolicies | None = None
    ) -> None:
        self._streams = streams
        self._fleet = fleet
        self._policies = policies
        self._events: Counter[int] = Counter()  # by first byte of the event: its type's tag
        self._rare: Counter[int] = Counter()  # by type, where the tag has more than a byte

    def on_batch(self, batch: Batch) -> None:
        """Count the batch's events by type."""
        for tag, count in Counter(payload[0] for payload in batch.payloads if payload).items():
            if tag < 0x80:
                self._events[tag >> 3] += count
            else:
                self._rare.update(
                    encoded.event_type(payload)
                    for payload in batch.payloads
                    if payload[:1] >= b"\x80"
                )

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its current value."""
        build = GaugeMetricFamily("tetragon_build_info", "Build", labels=["version"])
        build.add_metric([VERSION], 1)
        yield build
        events = CounterMetricFamily("tetragon_events", "Events received, by type", labels=["type"])
        for number, count in (self._events + self._rare).items():
            value = _TYPES.get(number)
            events.add_metric([value.name if value else "UNDEF"], count)
        yield events
        yield from self._own()
        yield from self._nodes()
        if self._policies is not None:
            store, view = self._policies.store, self._policies.view
            yield from policy_metrics.collect(store, view, self._fleet)

    def _own(self) -> Iterator[Metric]:
        feeds = self._streams.feeds()
        window = self._streams.broadcaster.statistics()
        gauges = {
            "live": (
                "Whether events arrive, or would arrive if there were any",
                not health.find_fault(self._streams, self._fleet),
            ),
            "clients": ("Event streams that are open", len(self._streams)),
            "clients_catching_up": (
                "Event streams that read from the past",
                sum(feed.catching_up for feed in feeds),
            ),
            "client_lag_messages": (
                "Messages by which the slowest stream is behind",
                max((feed.lag for feed in feeds), default=0),
            ),
            "window_bytes": ("Newest events kept in memory", window.size_bytes),
            "window_messages": ("Messages kept in memory", window.batches),
            "stream_sequence": (
                "Number of the newest message received",
                self._streams.broadcaster.head,
            ),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"tetra_gateway_{name}", text, value)
        yield CounterMetricFamily(
            "tetra_gateway_sent_events",
            "Events sent to clients, counted for each client",
            self._streams.sent_events_total,
        )
        yield CounterMetricFamily(
            "tetra_gateway_history_fetches",
            "Reads from the past",
            self._streams.history.fetches_total,
        )
        yield CounterMetricFamily(
            "tetra_gateway_repaired_messages",
            "Messages that one copy of the stream lacked and another had",
            self._streams.history.repaired_total,
        )

        malformed = CounterMetricFamily(
            "tetra_gateway_malformed", "Messages and events that could not be read", labels=["kind"]
        )
        for kind, count in self._streams.malformed.items():
            malformed.add_metric([kind], count)
        yield malformed

    def _nodes(self) -> Iterator[Metric]:
        alive = GaugeMetricFamily(
            "tetra_gateway_node_alive", "Whether the node's collector is alive", labels=["node"]
        )
        lost = CounterMetricFamily(
            "tetra_gateway_node_lost_events",
            "Events that the node's collector lost since its start",
            labels=["node", "cause"],
        )
        withheld = CounterMetricFamily(
            "tetra_gateway_node_withheld_events",
            "Events that throttling of the node's collector withheld",
            labels=["node", "kind"],
        )
        gauges = [
            GaugeMetricFamily(f"tetra_gateway_node_{name}", text, labels=["node"])
            for name, text in (
                ("waiting_events", "Events that the node's collector has and the stream does not"),
                (
                    "events_per_second",
                    "Events per second, as the node's collector reports",
                ),
                ("processes", "Processes alive on the node"),
            )
        ]
        waiting = self._fleet.waiting()
        for node in self._fleet.nodes():
            values = (waiting[node.node_name], node.events_per_second, node.processes)
            for gauge, value in zip(gauges, values, strict=True):
                gauge.add_metric([node.node_name], value)
            alive.add_metric([node.node_name], node.alive)
            for cause, count in node.loss.by_cause.items():
                lost.add_metric([node.node_name, cause], count)
            for kind, count in node.loss.withheld.items():
                withheld.add_metric([node.node_name, kind], count)
        yield alive
        yield lost
        yield withheld
        yield from gauges
