"""tetra.v1.Policies: policies of the fleet, beyond what Tetragon's API can say."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message

from bus.policies import selects
from eventstream import encoded
from gateway import rights
from gateway.policies import documents
from gateway.policies.audit import origin_of
from gateway.policies.fleet_policies import FleetPolicies
from gateway.policies.requests import Origin, revisions
from gateway.policies.signal import any_of
from gateway.policies.tryout import Tryout
from gateway.streams import Context, Handler, refusing
from tetra.v1 import policies_pb2 as pb

NAME = "tetra.v1.Policies"
_SHOW_EVERY_S = 0.2  # at most, to a client that watches
_LOOK_EVERY_S = 2.0  # nodes die without a message


class Policies:
    """The methods of the service."""

    def __init__(self, policies: FleetPolicies) -> None:
        self._policies = policies

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what a server needs."""
        unary: dict[str, tuple[Handler, type[Message]]] = {
            "AddPolicy": (self.add, pb.AddPolicyRequest),
            "DeletePolicy": (self.delete, pb.DeletePolicyRequest),
            "ConfigurePolicy": (self.configure, pb.ConfigurePolicyRequest),
            "RollbackPolicy": (self.rollback, pb.RollbackPolicyRequest),
            "PromotePolicy": (self.promote, pb.PromotePolicyRequest),
            "AbortPolicy": (self.abort, pb.AbortPolicyRequest),
            "ListPolicies": (self.list, pb.ListPoliciesRequest),
            "GetPolicyHistory": (self.history, pb.GetPolicyHistoryRequest),
        }
        streams: dict[str, tuple[Handler, type[Message]]] = {
            "TryPolicy": (self.try_policy, pb.TryPolicyRequest),
            "StreamPolicies": (self.stream, pb.ListPoliciesRequest),
            "StreamAudit": (self.audit, pb.StreamAuditRequest),
        }
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for name, (method, request) in unary.items():
            methods[name] = grpc.unary_unary_rpc_method_handler(
                refusing(method, request), response_serializer=encoded.serialize
            )
        for name, (method, request) in streams.items():
            methods[name] = grpc.unary_stream_rpc_method_handler(
                refusing(method, request), response_serializer=encoded.serialize
            )
        return [grpc.method_handlers_generic_handler(NAME, methods)]

    async def add(self, request: pb.AddPolicyRequest, context: Context) -> pb.PolicyChange:
        """Load a policy or a new revision of one."""
        origin = self._origin(context, request.comment)
        return await self._policies.requests.add(request, origin)

    async def delete(self, request: pb.DeletePolicyRequest, context: Context) -> pb.PolicyChange:
        """Remove a policy everywhere."""
        origin = self._origin(context, request.comment)
        return await self._policies.requests.delete(documents.key_of(request.policy), origin)

    async def configure(
        self, request: pb.ConfigurePolicyRequest, context: Context
    ) -> pb.PolicyChange:
        """Enable, disable, set mode and nodes."""
        origin = self._origin(context, request.comment)
        key = documents.key_of(request.policy)
        return await self._policies.requests.configure(key, request, origin)

    async def rollback(
        self, request: pb.RollbackPolicyRequest, context: Context
    ) -> pb.PolicyChange:
        """Load an earlier revision again."""
        origin = self._origin(context, request.comment)
        key = documents.key_of(request.policy)
        return await self._policies.requests.rollback(key, request, origin)

    async def promote(self, request: pb.PromotePolicyRequest, context: Context) -> pb.PolicyChange:
        """Load the canary everywhere."""
        origin = self._origin(context, request.comment)
        key = documents.key_of(request.policy)
        return await self._policies.requests.promote(key, request.timeout, origin)

    async def abort(self, request: pb.AbortPolicyRequest, context: Context) -> pb.PolicyChange:
        """End the canary."""
        origin = self._origin(context, request.comment)
        return await self._policies.requests.abort(documents.key_of(request.policy), origin)

    async def list(
        self, request: pb.ListPoliciesRequest, context: Context
    ) -> pb.ListPoliciesResponse:
        """Answer every policy with its nodes, asked now."""
        await self._policies.store.wait_complete()
        await self._policies.nodes.refresh()
        return self._listed(request)

    async def stream(self, request: pb.ListPoliciesRequest, context: Context) -> None:
        """Send the same now and after each change."""
        await self._policies.store.wait_complete()
        await self._policies.nodes.refresh()
        before: list[pb.FleetPolicy] | None = None
        while True:
            events = self._policies.store.changed.event, self._policies.nodes.changed.event
            response = self._listed(request)
            if list(response.policies) != before:
                before = list(response.policies)
                await context.write(response)
            await any_of(events, _LOOK_EVERY_S)
            await asyncio.sleep(_SHOW_EVERY_S)

    async def history(
        self, request: pb.GetPolicyHistoryRequest, context: Context
    ) -> pb.GetPolicyHistoryResponse:
        """Answer the revisions that are kept, newest first."""
        key = documents.key_of(request.policy)
        found = revisions(await self._policies.store.history(key))
        if not found or not self._may_see(found[0].nodes):
            raise documents.missing(key)
        for spec in found:
            if not request.with_yaml:
                spec.ClearField("yaml")
        return pb.GetPolicyHistoryResponse(revisions=found)

    async def audit(self, request: pb.StreamAuditRequest, context: Context) -> None:
        """Send who changed what."""
        since_ns = request.since.ToNanoseconds() if request.HasField("since") else 0
        await context.send_initial_metadata(())
        reading = self._policies.audit.read(since_ns, request.last, follow=request.follow)
        async for entries in reading:
            for entry in entries:
                if request.name and entry.policy.name != request.name:
                    continue
                if self._may_see(entry.nodes):
                    await context.write(entry)

    async def try_policy(self, request: pb.TryPolicyRequest, context: Context) -> None:
        """Load a policy for as long as the call is open."""
        key = await self._policies.requests.reader.key(request.yaml, "")
        origin = self._origin(context)(pb.PolicyOrigin.ACTION_TRY)
        nodes = documents.granted_selector(request.nodes)
        spec = pb.PolicySpec(yaml=request.yaml, enabled=True, nodes=nodes, origin=origin)
        fleet, audit = self._policies.nodes.fleet, self._policies.audit
        tryout = Tryout(fleet, self._policies.nodes, audit, key, spec, request)
        tryout.duration_s()
        async with aclosing(tryout.run()) as updates:
            async for update in updates:
                await context.write(update)

    def _listed(self, request: pb.ListPoliciesRequest) -> pb.ListPoliciesResponse:
        response = pb.ListPoliciesResponse(policies=self._policies.view.policies(request))
        response.time.GetCurrentTime()
        return response

    def _may_see(self, nodes: pb.NodeSelector) -> bool:
        granted = rights.granted_nodes()
        if not granted:
            return True
        labels = {info.node_name: info.labels for info in self._policies.nodes.infos()}
        return any(selects(nodes, name, labels.get(name, {})) for name in granted)

    def _origin(self, context: Context, comment: str = "") -> Origin:
        return partial(self._make_origin, context, comment)

    def _make_origin(
        self, context: Context, comment: str, action: pb.PolicyOrigin.Action.ValueType
    ) -> pb.PolicyOrigin:
        return origin_of(context, action, self._policies.name, comment)
