"""The desired state of one fleet policy on this node, from the content of the bucket."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from bus.policies import Key, selects
from collector.policies.entry import Identity, Revision, Wanted
from collector.policies.files import LARGEST_BYTES
from tetra.v1.policies_pb2 import PolicySpec, StoredPolicy
from tetragon.sensors_pb2 import TP_MODE_ENFORCE, TP_MODE_MONITOR
from tracingpolicy.position import PolicyErrors
from tracingpolicy.values import Mode

if TYPE_CHECKING:
    from tracingpolicy.model import Policy

_MODES = {TP_MODE_ENFORCE: Mode.ENFORCE, TP_MODE_MONITOR: Mode.MONITOR}


class Node(NamedTuple):
    """The name and labels that selectors match."""

    name: str
    labels: Mapping[str, str]


# Linux's name of a machine -> Kubernetes', where they differ.
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def selectable_labels(node: Node) -> dict[str, str]:
    """Return the labels that ``nodeSelector`` is compared with: those of every node, and its own.

    The first are what Kubernetes gives every node.
    """
    machine = os.uname().machine
    return {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": _MACHINES.get(machine, machine),
        **node.labels,
    }


# Revisions as they were stored, and parsed.
Parsed = list[tuple[PolicySpec, Revision]]


class Specs(NamedTuple):
    """The active revision, and the one that is loaded and waits to be switched on."""

    active: PolicySpec | None
    prepared: PolicySpec | None


def specs(stored: StoredPolicy, node: Node, *, expired: bool = False) -> Specs:
    """Return what ``node`` has to do; ``expired``: the candidate's gateway has given it up."""
    active = prepared = None
    if stored.HasField("current") and _wants(stored.current, node):
        active = stored.current
    if stored.HasField("candidate"):
        candidate = stored.candidate
        if node.name in candidate.running:
            active = candidate.spec
        elif not expired and (
            node.name in candidate.prepare
            or (candidate.prepare_all and _wants(candidate.spec, node))
        ):
            prepared = candidate.spec
    return Specs(active, prepared)


def _wants(spec: PolicySpec, node: Node) -> bool:
    return not spec.deleted and selects(spec.nodes, node.name, node.labels)


def wanted(
    key: Key, change: str, found: Specs, parse: Callable[[str, str], Policy], known: Parsed
) -> tuple[Wanted, Parsed]:
    """Return ``found`` with its documents parsed; pass the result as ``known`` the next time.

    ``change`` names the write of the bucket.
    """
    parsed: Parsed = []

    def revision(spec: PolicySpec | None) -> Revision | None:
        if spec is None:
            return None
        made = next((one for before, one in known if before == spec), None)
        made = made or _parsed(key, spec, parse)
        parsed.append((spec, made))
        return made

    active, prepared = revision(found.active), revision(found.prepared)
    return Wanted(Identity(*key), active, prepared, change), parsed


def _parsed(key: Key, spec: PolicySpec, parse: Callable[[str, str], Policy]) -> Revision:
    """The gateway has checked the document; the bus may have another one."""

    def revision(policy: Policy | None, error: str = "") -> Revision:
        return Revision(spec.revision, policy, error, spec.enabled, _MODES.get(spec.mode))

    if len(spec.yaml) > LARGEST_BYTES:
        return revision(None, f"document larger than {LARGEST_BYTES} bytes")
    try:
        policy = parse(spec.yaml, key.name)
    except PolicyErrors as errors:
        return revision(None, str(errors))
    if (policy.name, policy.namespace) != (key.name, key.namespace):
        return revision(None, f"document is of policy {policy.name}")
    return revision(policy)
