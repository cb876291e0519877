"""Policies of the fleet as an answer shows them: what is wanted, and each node's state."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from bus.policies import STATIC_DOMAIN, Key, selects
from gateway import rights
from gateway.policies.nodes import PolicyNodes
from gateway.policies.store import PolicyStore
from tetra.v1.node_pb2 import NodeInfo
from tetra.v1.policies_pb2 import (
    FleetPolicy,
    ListPoliciesRequest,
    NodePolicy,
    PolicyCandidate,
    PolicySpec,
    StoredPolicy,
)
from tetragon.sensors_pb2 import TracingPolicyState as State

_ACTIVE = (State.TP_STATE_ENABLED, State.TP_STATE_PARTIALLY_ENABLED)
_REASONS = 5  # of nodes, in one line


def candidate_wants(candidate: PolicyCandidate, info: NodeInfo) -> bool:
    """Return whether the node has to load, or runs, a candidate."""
    name = info.node_name
    if name in candidate.running or name in candidate.prepare:
        return True
    return candidate.prepare_all and wants(candidate.spec, info)


def wants(spec: PolicySpec, info: NodeInfo) -> bool:
    """Return whether the node is selected."""
    return not spec.deleted and selects(spec.nodes, info.node_name, info.labels)


def failure(status: NodePolicy, revision: int) -> str:
    """Return why a node could not carry out a revision, or nothing."""
    if status.seen != revision or revision in (status.revision, status.prepared):
        return ""
    return status.error


def in_one_line(errors: Iterable[tuple[str, str]]) -> str:
    """Return the first nodes and reasons."""
    found = sorted(errors)
    shown = [f"node {node}: {reason}" for node, reason in found[:_REASONS]]
    more = len(found) - _REASONS
    if more > 0:
        shown.append(f"and {more} more node{'s' if more > 1 else ''}")
    return "; ".join(shown)


class View:
    """Makes answers from the store and the nodes' statuses."""

    def __init__(self, store: PolicyStore, nodes: PolicyNodes) -> None:
        self._store = store
        self._nodes = nodes

    def policies(self, request: ListPoliciesRequest) -> list[FleetPolicy]:
        """Return what ``request`` asks for, by domain, namespace and name."""
        found = {
            key: self.policy(key, stored, with_yaml=request.with_yaml)
            for key, stored in self._store.all().items()
            if _matches(key, request) and exists(stored)
        }
        if request.with_static:
            found |= {key: self._static(key) for key in self._static_keys(request)}
        order = sorted(found, key=lambda key: (key.domain, key.namespace, key.name))
        return [found[key] for key in order if self._may_see(found[key])]

    def policy(self, key: Key, stored: StoredPolicy, *, with_yaml: bool = False) -> FleetPolicy:
        """Return one policy."""
        policy = FleetPolicy(policy=stored.policy)
        if stored.HasField("current") and not stored.current.deleted:
            policy.spec.CopyFrom(stored.current)
        if stored.HasField("candidate"):
            policy.candidate.CopyFrom(stored.candidate)
        if not with_yaml:
            policy.spec.ClearField("yaml") if policy.HasField("spec") else None
            policy.candidate.spec.ClearField("yaml") if policy.HasField("candidate") else None
        policy.nodes.extend(self.nodes(key, stored))
        _summarize(policy, stored)
        return policy

    def nodes(self, key: Key, stored: StoredPolicy) -> list[NodePolicy]:
        """Return every node that is selected, or still has the policy."""
        found = []
        for info in self._nodes.infos():
            if not rights.may_see(info.node_name):
                continue
            status = self._nodes.status(info.node_name, key)
            selected = wants(stored.current, info) if stored.HasField("current") else False
            if stored.HasField("candidate"):
                selected = selected or candidate_wants(stored.candidate, info)
            if not selected and status is None:
                continue
            one = NodePolicy(node_name=info.node_name)
            if status is not None:
                one.CopyFrom(status)
            one.alive, one.selected = info.alive, selected
            found.append(one)
        return found

    def _static_keys(self, request: ListPoliciesRequest) -> set[Key]:
        return {
            key
            for info in self._nodes.infos()
            if rights.may_see(info.node_name)
            for key in self._nodes.keys(info.node_name)
            if key.domain == STATIC_DOMAIN and _matches(key, request)
        }

    def _static(self, key: Key) -> FleetPolicy:
        policy = FleetPolicy()
        policy.policy.name, policy.policy.namespace, policy.policy.domain = key
        for info in self._nodes.infos():
            status = self._nodes.status(info.node_name, key)
            if status is not None and rights.may_see(info.node_name):
                one = policy.nodes.add()
                one.CopyFrom(status)
                one.alive = info.alive
        alive = [node for node in policy.nodes if node.alive]
        failed = [(one.node_name, one.error) for one in alive if one.error]
        policy.selected, policy.failed = len(alive), len(failed)
        policy.done = sum(one.state in _ACTIVE for one in alive)
        policy.away = len(policy.nodes) - len(alive)
        policy.state = _common([one.state for one in alive])
        policy.error = in_one_line(failed)
        return policy

    def _may_see(self, policy: FleetPolicy) -> bool:
        return not rights.granted_nodes() or bool(policy.nodes)


def exists(stored: StoredPolicy) -> bool:
    """Return whether the policy exists: it was not deleted, and its first change did not fail."""
    return stored.HasField("candidate") or (
        stored.HasField("current") and not stored.current.deleted
    )


def _matches(key: Key, request: ListPoliciesRequest) -> bool:
    if request.domain and request.domain != key.domain:
        return False
    return not request.name or fnmatchcase(key.name, request.name)


def _summarize(policy: FleetPolicy, stored: StoredPolicy) -> None:
    failed, states = [], []
    candidate = stored.candidate if stored.HasField("candidate") else None
    for node in policy.nodes:
        if not node.selected:
            continue
        if not node.alive:
            policy.away += 1
            continue
        policy.selected += 1
        number = stored.current.revision
        if candidate is not None and (
            candidate.prepare_all
            or node.node_name in candidate.running
            or node.node_name in candidate.prepare
        ):
            number = candidate.spec.revision
        policy.done += number in (node.revision, node.prepared)
        reason = failure(node, number)
        if reason:
            failed.append((node.node_name, reason))
        # A node that has not seen the revision yet reports the state of an earlier one.
        states.append(
            node.state if number in (node.seen, node.revision) else State.TP_STATE_LOADING
        )
    policy.failed = len(failed)
    policy.error = in_one_line(failed)
    policy.state = _common(states)
    if not states and policy.HasField("spec"):
        policy.state = State.TP_STATE_LOADING if policy.spec.enabled else State.TP_STATE_DISABLED


def _common(states: list[State.ValueType]) -> State.ValueType:
    """Return the state of the policy: the worst state of its nodes."""
    for state in (
        State.TP_STATE_LOAD_ERROR, State.TP_STATE_ERROR, State.TP_STATE_LOADING,
        State.TP_STATE_UNLOADING, State.TP_STATE_PARTIALLY_ENABLED, State.TP_STATE_DISABLED,
        State.TP_STATE_SKIPPED, State.TP_STATE_ENABLED,
    ):  # fmt: skip
        if state in states:
            return state
    return State.TP_STATE_UNKNOWN
