"""Metrics of the fleet's policies, as this gateway knows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from gateway.fleet import Fleet
from gateway.policies.store import PolicyStore
from gateway.policies.view import View
from tetra.v1.policies_pb2 import ListPoliciesRequest
from tetragon.sensors_pb2 import TracingPolicyState

_NODE_STATES = ("loaded", "failed", "disabled", "loading")


def collect(store: PolicyStore, view: View, fleet: Fleet) -> Iterator[Metric]:
    """Yield policies by state, nodes of each policy by state, policies of each node by state."""
    policies = GaugeMetricFamily(
        "tetra_gateway_policies", "Policies of the fleet, by their state on all nodes",
        labels=["state"],
    )  # fmt: skip
    nodes = GaugeMetricFamily(
        "tetra_gateway_policy_nodes", "Selected nodes of a policy of the fleet, by state",
        labels=["policy", "namespace", "domain", "state"],
    )  # fmt: skip
    found = view.policies(ListPoliciesRequest()) if store.complete else []
    states = Counter(_name(one.state) for one in found)
    for state in TracingPolicyState.values()[1:]:
        policies.add_metric([_name(state)], states[_name(state)])
    for one in found:
        waiting = one.selected - one.done - one.failed
        of = [one.policy.name, one.policy.namespace, one.policy.domain]
        for progress, number in (
            ("done", one.done), ("failed", one.failed), ("waiting", waiting), ("away", one.away),
        ):  # fmt: skip
            nodes.add_metric([*of, progress], number)
    own = GaugeMetricFamily(
        "tetra_gateway_node_policies", "Policies of the node, by state", labels=["node", "state"]
    )
    for node in fleet.nodes():
        if node.HasField("policies"):
            for name in _NODE_STATES:
                own.add_metric([node.node_name, name], getattr(node.policies, name))
    yield from (policies, nodes, own)


def _name(state: TracingPolicyState.ValueType) -> str:
    return TracingPolicyState.Name(state).removeprefix("TP_STATE_").lower()
