"""What each method needs, and what a request was granted.

A method that is not listed here is denied: to add one to the API is to decide who may call it.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

import grpc

from chassis.tokens import CONTROL, POLICIES, READ, RIGHTS
from gateway.errors import RequestError

NONE = ""  # needs no token

_SENSORS = "/tetragon.FineGuidanceSensors/"
_EVENT_LOG = "/tetragon.EventLogService/"
_EVENTS = "/tetra.v1.EventStream/"
_PLANS = "/tetra.v1.PolicyPlans/"
_FLEET = "/tetra.v1.Policies/"

# The right that a method needs, by the method's full name.
NEEDED = {
    _SENSORS + "GetEvents": READ,
    _SENSORS + "GetHealth": READ,
    _SENSORS + "GetVersion": READ,
    _SENSORS + "GetInfo": READ,
    _SENSORS + "GetDebug": READ,
    _SENSORS + "SetDebug": CONTROL,
    _SENSORS + "AddTracingPolicy": POLICIES,
    _SENSORS + "DeleteTracingPolicy": POLICIES,
    _SENSORS + "ConfigureTracingPolicy": POLICIES,
    _SENSORS + "EnableTracingPolicy": POLICIES,
    _SENSORS + "DisableTracingPolicy": POLICIES,
    _SENSORS + "ListTracingPolicies": READ,
    _SENSORS + "ListDomains": READ,
    _SENSORS + "ListSensors": READ,
    _SENSORS + "EnableSensor": CONTROL,
    _SENSORS + "DisableSensor": CONTROL,
    _SENSORS + "RemoveSensor": CONTROL,
    _SENSORS + "RuntimeHook": CONTROL,
    _EVENT_LOG + "GetEventLogParams": READ,
    _EVENT_LOG + "SetEventLogParams": CONTROL,
    _EVENTS + "StreamEvents": READ,
    _EVENTS + "CountEvents": READ,
    _EVENTS + "ListNodes": READ,
    _FLEET + "AddPolicy": POLICIES,
    _FLEET + "DeletePolicy": POLICIES,
    _FLEET + "ConfigurePolicy": POLICIES,
    _FLEET + "RollbackPolicy": POLICIES,
    _FLEET + "PromotePolicy": POLICIES,
    _FLEET + "AbortPolicy": POLICIES,
    _FLEET + "TryPolicy": POLICIES,
    # Nodes run the planner for this call: only clients that may load the document there may ask.
    _PLANS + "PlanPolicy": POLICIES,
    _FLEET + "ListPolicies": READ,
    _FLEET + "StreamPolicies": READ,
    _FLEET + "GetPolicyHistory": READ,
    _FLEET + "StreamAudit": READ,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": READ,
    "/grpc.health.v1.Health/Check": NONE,
    "/grpc.health.v1.Health/List": NONE,
    "/grpc.health.v1.Health/Watch": NONE,
}


@dataclass(frozen=True, slots=True)
class Grant:
    """What the holder of a token may do, and on which nodes; no nodes means all."""

    rights: frozenset[str] = RIGHTS
    nodes: frozenset[str] = frozenset()
    # Whose token it is, for the audit; a changed comment ends no stream.
    holder: str = field(default="anyone", compare=False)


# Set for the task that handles one request.
current: ContextVar[Grant] = ContextVar("grant", default=Grant())  # noqa: B039 - it is frozen


def granted_nodes() -> frozenset[str]:
    """Return the nodes this request is limited to; empty means all."""
    return current.get().nodes


def may_see(node: str) -> bool:
    """Return whether this request may learn of ``node``."""
    nodes = granted_nodes()
    return not nodes or node in nodes


def choose_nodes(wanted: frozenset[str]) -> frozenset[str]:
    """Return the nodes of ``wanted`` (empty: all) for this request; raise if one is not granted."""
    nodes = granted_nodes()
    if not nodes:
        return wanted
    for node in sorted(wanted - nodes):
        raise RequestError(
            f"node {node}: the token does not grant it", grpc.StatusCode.PERMISSION_DENIED
        )
    return wanted or nodes
