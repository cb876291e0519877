"""tetra.v1.PolicyPlans: how the nodes would attach a policy, as their collectors answer."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from bus.policies import selects
from eventstream import encoded
from gateway import rights
from gateway.errors import RequestError
from gateway.fleet import Fleet
from gateway.policies.documents import MAX_DOCUMENT_BYTES
from gateway.streams import Context, refusing
from tetra.v1 import plans_pb2 as pb
from tetra.v1.bus_pb2 import ControlRequest

NAME = "tetra.v1.PolicyPlans"
_ANSWER_S = 20.0  # a slow host reads its kernel's types in seconds
_AT_A_TIME = 32


class PolicyPlans:
    """The methods of the service."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._places = asyncio.Semaphore(_AT_A_TIME)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what a server needs."""
        method: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            refusing(self.plan, pb.PlanPolicyRequest), response_serializer=encoded.serialize
        )
        return [grpc.method_handlers_generic_handler(NAME, {"PlanPolicy": method})]

    async def plan(self, request: pb.PlanPolicyRequest, context: Context) -> pb.PlanPolicyResponse:
        """Ask each selected node that is alive."""
        size = len(request.yaml.encode())
        if size > MAX_DOCUMENT_BYTES:
            raise RequestError(
                f"document: {size} bytes, at most {MAX_DOCUMENT_BYTES} are allowed",
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            )
        chosen = [
            node.node_name
            for node in await self._fleet.describe()
            if node.alive
            and rights.may_see(node.node_name)
            and selects(request.nodes, node.node_name, node.labels)
        ]
        asked = ControlRequest(
            plan_policy=pb.PlanOnNode(yaml=request.yaml, with_source=request.with_source)
        )
        plans = await asyncio.gather(*(self._ask(name, asked) for name in sorted(chosen)))
        return pb.PlanPolicyResponse(nodes=plans)

    async def _ask(self, name: str, request: ControlRequest) -> pb.NodePlan:
        async with self._places:
            answers = await self._fleet.ask(request, name, _ANSWER_S)
        if not answers:
            return pb.NodePlan(node_name=name, error=f"no answer within {_ANSWER_S:.0f} s")
        answer = answers[0]
        if not answer.HasField("plan"):
            why = answer.error or "an older collector, which cannot plan without loading"
            return pb.NodePlan(node_name=name, error=why)
        answer.plan.node_name = name
        return answer.plan
