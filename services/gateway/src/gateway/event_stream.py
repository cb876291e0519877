"""tetra.v1.EventStream: events in batches, from any place of the stream, with what is missing."""

from __future__ import annotations

from typing import Any

import grpc

from eventstream import encoded
from eventstream.errors import BusError
from gateway import rights
from gateway.fleet import Fleet
from gateway.plan import Planner
from gateway.sender import Reporter, Sender
from gateway.streams import Context, Streams, begin, refusing, refusing_filters
from tetra.v1 import stream_pb2

NAME = "tetra.v1.EventStream"


class EventStream:
    """The methods of the service."""

    def __init__(self, streams: Streams, fleet: Fleet) -> None:
        self._streams = streams
        self._fleet = fleet

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what a server needs; responses are made as bytes."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "StreamEvents": grpc.unary_stream_rpc_method_handler(
                refusing_filters(self.stream_events, stream_pb2.StreamEventsRequest)
            ),
            "ListNodes": grpc.unary_unary_rpc_method_handler(
                refusing(self.list_nodes, stream_pb2.ListNodesRequest),
                response_serializer=encoded.serialize,
            ),
        }
        return [grpc.method_handlers_generic_handler(NAME, methods)]

    async def stream_events(
        self, request: stream_pb2.StreamEventsRequest, context: Context
    ) -> None:
        """Send batches from the requested start until the requested end or the client's."""
        nodes = rights.choose_nodes(frozenset(request.nodes))
        async with self._streams.open(request, nodes) as selection:
            await begin(context)
            report = Reporter(context).report
            planner = Planner(request, selection, self._streams, self._fleet, report)
            plan = await planner.plan()
            await Sender(request, selection, plan, context, self._streams).run()

    async def list_nodes(
        self, request: stream_pb2.ListNodesRequest, context: Context
    ) -> stream_pb2.ListNodesResponse:
        """Answer every node; while NATS is away, the nodes as they were last."""
        try:
            nodes = await self._fleet.describe()
        except BusError:
            nodes = self._fleet.nodes()
        return stream_pb2.ListNodesResponse(
            nodes=[node for node in nodes if rights.may_see(node.node_name)]
        )
