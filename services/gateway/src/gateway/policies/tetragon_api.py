"""The calls of Tetragon's API that change policies: the same changes, with Tetragon's answers."""

from __future__ import annotations

import grpc

from bus.policies import Key
from gateway.errors import RequestError
from gateway.policies import documents
from gateway.policies.audit import origin_of
from gateway.policies.fleet_policies import FleetPolicies
from gateway.policies.requests import Origin
from gateway.streams import Context
from tetra.v1.policies_pb2 import AddPolicyRequest, ConfigurePolicyRequest, PolicyChange, PolicyRef
from tetragon import sensors_pb2 as pb


class TracingPolicies:
    """AddTracingPolicy and the others, on every node of the fleet."""

    def __init__(self, policies: FleetPolicies) -> None:
        self._policies = policies

    async def add(
        self, request: pb.AddTracingPolicyRequest, context: Context
    ) -> pb.AddTracingPolicyResponse:
        """Load a policy everywhere, or nowhere."""
        wanted = AddPolicyRequest(yaml=request.yaml, domain=request.domain)
        change = await self._policies.requests.add(wanted, self._origin(context))
        _check(change, "failed to add tracing policy")
        return pb.AddTracingPolicyResponse()

    async def delete(
        self, request: pb.DeleteTracingPolicyRequest, context: Context
    ) -> pb.DeleteTracingPolicyResponse:
        """Remove a policy everywhere."""
        change = await self._policies.requests.delete(_key(request), self._origin(context))
        _check(change, "failed to delete tracing policy")
        return pb.DeleteTracingPolicyResponse()

    async def configure(
        self, request: pb.ConfigureTracingPolicyRequest, context: Context
    ) -> pb.ConfigureTracingPolicyResponse:
        """Set mode, enable or disable."""
        wanted = ConfigurePolicyRequest()
        if request.HasField("enable"):
            wanted.enable = request.enable
        if request.HasField("mode"):
            wanted.mode = request.mode
        await self._configure(_key(request), wanted, context)
        return pb.ConfigureTracingPolicyResponse()

    async def enable(
        self, request: pb.EnableTracingPolicyRequest, context: Context
    ) -> pb.EnableTracingPolicyResponse:
        """Load a disabled policy again."""
        await self._configure(_key(request), ConfigurePolicyRequest(enable=True), context)
        return pb.EnableTracingPolicyResponse()

    async def disable(
        self, request: pb.DisableTracingPolicyRequest, context: Context
    ) -> pb.DisableTracingPolicyResponse:
        """Switch a policy off and unload it."""
        await self._configure(_key(request), ConfigurePolicyRequest(enable=False), context)
        return pb.DisableTracingPolicyResponse()

    async def _configure(self, key: Key, wanted: ConfigurePolicyRequest, context: Context) -> None:
        change = await self._policies.requests.configure(key, wanted, self._origin(context))
        _check(change, "failed to configure tracing policy")

    def _origin(self, context: Context) -> Origin:
        return lambda action: origin_of(context, action, self._policies.name)


_Named = (
    pb.DeleteTracingPolicyRequest
    | pb.ConfigureTracingPolicyRequest
    | pb.EnableTracingPolicyRequest
    | pb.DisableTracingPolicyRequest
)


def _key(request: _Named) -> Key:
    return documents.key_of(
        PolicyRef(name=request.name, namespace=request.namespace, domain=request.domain)
    )


def _check(change: PolicyChange, what: str) -> None:
    if change.error:
        raise RequestError(f"{what}: {change.error}", grpc.StatusCode.FAILED_PRECONDITION)
