"""Canaries: their nodes, and when one exceeds its limits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import grpc

from bus.policies import Key
from gateway.errors import RequestError
from tetra.v1.policies_pb2 import Canary, NodePolicy, PolicyCandidate, StoredPolicy


def choose(key: Key, percent: float, nodes: Iterable[str]) -> list[str]:
    """Return the first of ``nodes`` by a hash of policy and name, at least one."""
    order = sorted(nodes, key=lambda name: hashlib.sha256(f"{key}\0{name}".encode()).digest())
    if not order:
        raise RequestError(
            f"policy {key}: canary: no selected node is alive",
            grpc.StatusCode.FAILED_PRECONDITION,
        )
    return sorted(order[: max(1, math.ceil(len(order) * percent / 100))])


def check(canary: Canary) -> None:
    """Raise `RequestError` for an invalid percentage."""
    if not 0 < canary.percent <= 100:
        raise RequestError(f"canary: {canary.percent:g} percent: expected above 0, up to 100")


def running(key: Key, stored: StoredPolicy) -> PolicyCandidate:
    """Return the canary; raise `RequestError` where there is none."""
    if not stored.HasField("candidate") or not stored.candidate.running:
        raise RequestError(f"policy {key}: there is no canary", grpc.StatusCode.FAILED_PRECONDITION)
    if stored.candidate.lease_s:
        raise RequestError(
            f"policy {key}: the canary is being promoted: try again later",
            grpc.StatusCode.ABORTED,
        )
    return stored.candidate


def excess(limits: Canary, revision: int, nodes: Iterable[NodePolicy]) -> str:
    """Return which node is over which limit, or nothing."""
    for node in nodes:
        if node.revision != revision:
            continue
        hits = node.hits - node.hits_before
        lost = sum(node.lost.values()) + node.missed - node.lost_before
        if limits.HasField("max_hits") and hits > limits.max_hits:
            return f"node {node.node_name}: {hits} hits exceed the limit of {limits.max_hits}"
        if limits.HasField("max_lost") and lost > limits.max_lost:
            return f"node {node.node_name}: {lost} lost exceed the limit of {limits.max_lost}"
    return ""
