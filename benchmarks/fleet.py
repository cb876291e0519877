"""Many nodes through one NATS and one, two, four gateways."""

from __future__ import annotations

import time

from benchmarks.gateway import feed, publish, recorded, report_of
from benchmarks.harness import Report, services

NODES = (20, 50, 100, 200)
PER_SECOND = 100
GATEWAYS = (1, 2, 4)


def run(report: Report, quick: bool) -> None:
    """Grow the fleet, then the gateways."""
    seconds = 5 if quick else 12
    report.begin("fleet", f"{PER_SECOND} events a second of each node, {seconds} s each")
    events = recorded(report)
    costs: dict[int, float] = {}
    for nodes in NODES:
        with services("fleet") as running:
            running.start_nats()
            running.start_gateway()
            reader = feed("read", "--address", running.addresses[0], "--seconds", seconds + 3)
            assert reader.stdout
            reader.stdout.readline()
            before, start = running.cpu(), time.monotonic()
            sent = publish(
                running, events, nodes * PER_SECOND * seconds, nodes=nodes, per_batch=100,
                per_second=PER_SECOND,
            )  # fmt: skip
            took_s = time.monotonic() - start
            spent = {name: value - before[name] for name, value in running.cpu().items()}
            behind = running.metrics("gateway0")["tetra_gateway_client_lag_messages"]
            report_of(reader)
            total = sum(spent.values()) / sent["events"] * 1e6
            costs[nodes] = total
            report.add(f"{nodes} nodes: NATS", spent["nats"] / took_s, "cores")
            report.add(f"{nodes} nodes: gateway", spent["gateway0"] / took_s, "cores")
            report.add(f"{nodes} nodes: CPU an event, both", total, "us")
            report.add(f"{nodes} nodes: messages behind at the end", behind, "", ("<=", 4))
    report.add(
        "cost of an event, 200 nodes against 20", costs[NODES[-1]] / costs[NODES[0]], "x",
        ("<=", 1.2),
    )  # fmt: skip
    count = 50_000 if quick else 100_000
    rates = {}
    for gateways in GATEWAYS:
        with services("fleet") as running:
            running.start_nats()
            for _ in range(gateways):
                running.start_gateway()
            publish(running, events, count, nodes=20)
            streams = 2 * GATEWAYS[-1]
            read = report_of(
                feed(
                    "read", "--address", ",".join(running.addresses), "--past", "--streams", streams
                )
            )
            rates[gateways] = streams * count / read["seconds"]
            report.add(f"{gateways} gateways, {streams} streams", rates[gateways], "events/s")
    report.add("two gateways against one", rates[2] / rates[1], "x")
