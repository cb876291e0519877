"""tetra.v1.EventStream: batches from any position of the stream, with notices of gaps."""

from __future__ import annotations

from typing import Any

import grpc
import structlog

from eventstream import encoded
from eventstream.errors import BusError
from eventstream.notices import Window
from gateway import past, rights
from gateway.aggregating import AggregatingSender, wanted
from gateway.columns import Columns, Reach
from gateway.counting import Count, tally_of
from gateway.errors import RequestError
from gateway.fleet import Fleet
from gateway.past import Past
from gateway.plan import Planner
from gateway.selection import Selection
from gateway.sender import Reporter, Sender
from gateway.streams import Context, Streams, begin, refusing, refusing_filters
from tetra.v1 import stream_pb2

NAME = "tetra.v1.EventStream"

_log = structlog.get_logger()


class EventStream:
    """The methods of the service."""

    def __init__(self, streams: Streams, fleet: Fleet, columns: Columns) -> None:
        self._streams = streams
        self._fleet = fleet
        self._past = Past(columns, streams)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what a server needs; responses are made as bytes."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "StreamEvents": grpc.unary_stream_rpc_method_handler(
                refusing_filters(self.stream_events, stream_pb2.StreamEventsRequest)
            ),
            "CountEvents": grpc.unary_stream_rpc_method_handler(
                refusing_filters(self.count_events, stream_pb2.CountEventsRequest)
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
        limits = wanted(request.aggregation_options)
        async with self._streams.open(request, nodes) as selection:
            await begin(context)
            report = Reporter(context).report
            reach = None
            if limits is None:  # windows follow the stream's messages
                reach = await self._send_columns(request, selection, context)
            rest = request if reach is None else past.follow(request, reach)
            planner = Planner(rest, selection, self._streams, self._fleet, report)
            plan = await planner.plan()
            if reach is not None:
                await self._past.remember(plan.feed, reach)
                plan.window = Window(past.since_of(request), plan.window.until_ns)
            sender = Sender(rest, selection, plan, context, self._streams)
            if limits is not None:
                sender = AggregatingSender(rest, selection, plan, context, self._streams, limits)
            await sender.run()

    # Returns the end of the columns; None if nothing was sent from them.
    async def _send_columns(
        self, request: stream_pb2.StreamEventsRequest, selection: Selection, context: Context
    ) -> Reach | None:
        if not request.HasField("since"):
            return None
        since_ns = past.since_of(request)
        if not await self._past.is_in_columns(since_ns, filtered=bool(request.allow_list)):
            return None
        asked = stream_pb2.StreamEventsRequest()
        asked.CopyFrom(request)
        del asked.nodes[:]
        asked.nodes.extend(sorted(selection.nodes))
        sent = 0
        try:
            async with self._past.columns.ask(asked) as answers:
                async for response in answers:
                    if not sent and answers.reach is not None:
                        gaps = past.not_kept(since_ns, answers.reach)
                        response += stream_pb2.StreamEventsResponse(gaps=gaps).SerializeToString()
                    await context.write(response)
                    sent += 1
        except (BusError, RequestError) as error:
            if sent:  # the client continues after its last cursor
                raise BusError(str(error)) from None
            _log.warning("columns not read, reading the stream", error=str(error))
            return None
        return answers.reach

    async def count_events(self, request: stream_pb2.CountEventsRequest, context: Context) -> None:
        """Send progress, then the rows and their basis."""
        nodes = rights.choose_nodes(frozenset(request.nodes))
        filters = stream_pb2.StreamEventsRequest(
            allow_list=request.allow_list, deny_list=request.deny_list
        )
        tally_of(request)  # refused before a stream is opened
        async with self._streams.open(filters, nodes) as selection:
            await begin(context)
            await Count(request, selection, self._past, self._fleet, context).run()

    async def list_nodes(
        self, request: stream_pb2.ListNodesRequest, context: Context
    ) -> stream_pb2.ListNodesResponse:
        """Answer every node; while NATS is unreachable, the last known state of the nodes."""
        try:
            nodes = await self._fleet.describe()
        except BusError:
            nodes = self._fleet.nodes()
        return stream_pb2.ListNodesResponse(
            nodes=[node for node in nodes if rights.may_see(node.node_name)]
        )
