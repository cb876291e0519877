"""tetragon.FineGuidanceSensors: what any Tetragon client calls."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf import any_pb2, wrappers_pb2
from google.protobuf.message import Message

from chassis import logging
from eventstream import encoded
from gateway import aggregating, health, rights
from gateway.errors import RequestError
from gateway.feed import Feed
from gateway.fleet import Fleet
from gateway.policies.tetragon_api import TracingPolicies
from gateway.selection import Selection
from gateway.settings import Settings
from gateway.streams import Context, Handler, Streams, begin, refusing, refusing_filters
from gateway.version import VERSION
from tetra.v1 import bus_pb2
from tetragon import events_pb2, sensors_pb2, tetragon_pb2

NAME = "tetragon.FineGuidanceSensors"
# Request metadata: the node that GetDebug, SetDebug and ListTracingPolicies mean.
NODE_KEY = "tetra-node"

_SENSORS = "sensors are deprecated in Tetragon's API; the probes here are always on"
_WHY_NOT = {
    "ListSensors": _SENSORS,
    "EnableSensor": _SENSORS,
    "DisableSensor": _SENSORS,
    "RemoveSensor": _SENSORS,
    "RuntimeHook": "containers are found by their cgroups; no runtime hook is needed",
    "GetEventLogParams": "a gateway writes no file; ask tetra-exporter at its TETRA_SERVER_ADDRESS",
    "SetEventLogParams": "a gateway writes no file; ask tetra-exporter at its TETRA_SERVER_ADDRESS",
}
_LEVELS = {  # from the least to the most verbose
    sensors_pb2.LOG_LEVEL_ERROR: "error",
    sensors_pb2.LOG_LEVEL_WARN: "warning",
    sensors_pb2.LOG_LEVEL_INFO: "info",
    sensors_pb2.LOG_LEVEL_DEBUG: "debug",
}
_SAME_LEVELS = {
    sensors_pb2.LOG_LEVEL_PANIC: "error",
    sensors_pb2.LOG_LEVEL_FATAL: "error",
    sensors_pb2.LOG_LEVEL_TRACE: "debug",
}


class Sensors:
    """The methods of the service, each named in snake_case."""

    def __init__(
        self, streams: Streams, fleet: Fleet, settings: Settings, policies: TracingPolicies
    ) -> None:
        self._streams = streams
        self._tracing_policies = policies
        self._fleet = fleet
        self._settings = settings

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what a server needs; events pass as bytes, so nothing is parsed or serialized."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "GetEvents": grpc.unary_stream_rpc_method_handler(
                refusing_filters(self.get_events, events_pb2.GetEventsRequest)
            )
        }
        policies = self._tracing_policies
        served: dict[str, tuple[Handler, type[Message]]] = {
            "GetHealth": (self.get_health, tetragon_pb2.GetHealthStatusRequest),
            "GetVersion": (self.get_version, sensors_pb2.GetVersionRequest),
            "GetInfo": (self.get_info, sensors_pb2.GetInfoRequest),
            "GetDebug": (self.get_debug, sensors_pb2.GetDebugRequest),
            "SetDebug": (self.set_debug, sensors_pb2.SetDebugRequest),
            "ListTracingPolicies": (
                self.list_tracing_policies,
                sensors_pb2.ListTracingPoliciesRequest,
            ),
            "ListDomains": (self.list_domains, sensors_pb2.ListDomainsRequest),
            "AddTracingPolicy": (policies.add, sensors_pb2.AddTracingPolicyRequest),
            "DeleteTracingPolicy": (policies.delete, sensors_pb2.DeleteTracingPolicyRequest),
            "ConfigureTracingPolicy": (
                policies.configure,
                sensors_pb2.ConfigureTracingPolicyRequest,
            ),
            "EnableTracingPolicy": (policies.enable, sensors_pb2.EnableTracingPolicyRequest),
            "DisableTracingPolicy": (policies.disable, sensors_pb2.DisableTracingPolicyRequest),
        }
        for name, (method, request) in served.items():
            methods[name] = grpc.unary_unary_rpc_method_handler(
                refusing(method, request),
                response_serializer=encoded.serialize,
            )
        log_methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for name, why in _WHY_NOT.items():
            table = log_methods if "EventLog" in name else methods
            table[name] = grpc.unary_unary_rpc_method_handler(_unimplemented(name, why))
        return [
            grpc.method_handlers_generic_handler(NAME, methods),
            grpc.method_handlers_generic_handler("tetragon.EventLogService", log_methods),
        ]

    async def get_events(self, request: events_pb2.GetEventsRequest, context: Context) -> None:
        """Send one message an event, from now on; with aggregation options one for equal events.

        Tetragon ignores these options.
        """
        limits = aggregating.wanted(request.aggregation_options)
        async with self._streams.open(request, rights.granted_nodes()) as selection:
            feed = self._streams.feed(selection.turn)
            await begin(context)
            if limits is not None:
                await self._send_windows(feed, selection, aggregating.Window(limits), context)
            while True:
                batch, duplicates = await feed.next()
                async for part in selection.select(batch, duplicates):
                    for _, payload in part:
                        await context.write(payload)
                        self._streams.sent_events_total += 1

    async def _send_windows(
        self, feed: Feed, selection: Selection, window: aggregating.Window, context: Context
    ) -> None:
        async def send(payloads: list[bytes]) -> None:
            for payload in payloads:
                await context.write(payload)
                self._streams.sent_events_total += 1

        try:
            async for payloads in aggregating.windows(feed, selection, window):
                await send(payloads)
        except asyncio.CancelledError:
            if self._streams.stopping:  # the client is there, and would miss what is held
                await send(window.take())
            raise

    async def get_health(
        self, request: tetragon_pb2.GetHealthStatusRequest, context: Context
    ) -> tetragon_pb2.GetHealthStatusResponse:
        """Answer for the gateway, then for each node that is stalled or silent."""
        response = tetragon_pb2.GetHealthStatusResponse()
        found = health.find_fault(self._streams, self._fleet)
        response.health_status.add(
            event=tetragon_pb2.HEALTH_STATUS_TYPE_STATUS,
            status=tetragon_pb2.HEALTH_STATUS_ERROR
            if found
            else tetragon_pb2.HEALTH_STATUS_RUNNING,
            details=found or "running",
        )
        for name in self._fleet.stalled():
            if rights.may_see(name):
                response.health_status.add(
                    event=tetragon_pb2.HEALTH_STATUS_TYPE_STATUS,
                    status=tetragon_pb2.HEALTH_STATUS_ERROR,
                    details=f"node {name}: {_waiting(self._fleet.waiting()[name])} at its "
                    "collector: the collector answers, but the stream stores none of its events",
                )
        for node in self._fleet.nodes():
            if node.others and rights.may_see(node.node_name):
                response.health_status.add(
                    event=tetragon_pb2.HEALTH_STATUS_TYPE_STATUS,
                    status=tetragon_pb2.HEALTH_STATUS_ERROR,
                    details=f"node {node.node_name}: {len(node.others) + 1} collectors answer in "
                    "its name: set NODE_NAME on all hosts but one (tetra nodes shows their boots)",
                )
            if not node.alive and rights.may_see(node.node_name):
                response.health_status.add(
                    event=tetragon_pb2.HEALTH_STATUS_TYPE_STATUS,
                    status=tetragon_pb2.HEALTH_STATUS_STOPPED,
                    details=f"node {node.node_name}: silent, last seen "
                    f"{node.last_seen.ToJsonString()}",
                )
        return response

    async def get_version(
        self, request: sensors_pb2.GetVersionRequest, context: Context
    ) -> sensors_pb2.GetVersionResponse:
        """Answer the gateway's version."""
        return sensors_pb2.GetVersionResponse(version=VERSION)

    async def get_info(
        self, request: sensors_pb2.GetInfoRequest, context: Context
    ) -> sensors_pb2.GetInfoResponse:
        """Answer version and settings; no secret is among them."""
        response = sensors_pb2.GetInfoResponse(version=VERSION, name="tetra-gateway")
        for key, value in self._settings:
            if "password" in key:
                continue
            wrapped: Message
            if isinstance(value, bool):
                wrapped = wrappers_pb2.BoolValue(value=value)
            elif isinstance(value, int):
                wrapped = wrappers_pb2.Int64Value(value=value)
            else:
                text = "" if value is None else str(value)
                wrapped = wrappers_pb2.StringValue(value=_without_user(text))
            packed = any_pb2.Any()
            packed.Pack(wrapped)
            response.conf.add(key=key.replace("_", "-"), value=packed)
        return response

    async def get_debug(
        self, request: sensors_pb2.GetDebugRequest, context: Context
    ) -> sensors_pb2.GetDebugResponse:
        """Answer the most verbose log level of the chosen nodes, or their processes."""
        nodes = _chosen_nodes(context)
        if request.flag == sensors_pb2.CONFIG_FLAG_DUMP_PROCESS_CACHE:
            return await self._dump(nodes)
        if request.flag != sensors_pb2.CONFIG_FLAG_LOG_LEVEL:
            raise RequestError(f"flag {request.flag} is not known")
        answers = await self._fleet.ask_nodes(bus_pb2.ControlRequest(describe=True), nodes)
        levels = {a.node.log_level for a in answers} or {"" if nodes else logging.get_level()}
        for level in reversed(_LEVELS):
            if _LEVELS[level] in levels:
                return sensors_pb2.GetDebugResponse(flag=request.flag, level=level)
        raise _no_answer(nodes)

    async def set_debug(
        self, request: sensors_pb2.SetDebugRequest, context: Context
    ) -> sensors_pb2.SetDebugResponse:
        """Set the log level of the chosen nodes; of this gateway too, where that is all nodes."""
        nodes = _chosen_nodes(context)
        if request.flag != sensors_pb2.CONFIG_FLAG_LOG_LEVEL or not request.HasField("level"):
            raise RequestError("only CONFIG_FLAG_LOG_LEVEL can be set, with a level")
        level = (_LEVELS | _SAME_LEVELS).get(request.level)
        if level is None:
            raise RequestError(f"log level {request.level} is not known")
        answers = await self._fleet.ask_nodes(bus_pb2.ControlRequest(set_log_level=level), nodes)
        if nodes and not answers:
            raise _no_answer(nodes)
        for answer in answers:
            if answer.error:
                raise RequestError(
                    f"node {answer.node.node_name}: {answer.error}", grpc.StatusCode.INTERNAL
                )
        if not nodes:
            logging.set_level(level)
        return sensors_pb2.SetDebugResponse(flag=request.flag, level=request.level)

    async def list_tracing_policies(
        self, request: sensors_pb2.ListTracingPoliciesRequest, context: Context
    ) -> sensors_pb2.ListTracingPoliciesResponse:
        """Answer the policies of every node, or of one; each says its node in a field of ours."""
        policies = await self._policies(context, request.domain)
        return sensors_pb2.ListTracingPoliciesResponse(policies=policies)

    async def list_domains(
        self, request: sensors_pb2.ListDomainsRequest, context: Context
    ) -> sensors_pb2.ListDomainsResponse:
        """Answer the domains that have policies, in order."""
        policies = await self._policies(context)
        return sensors_pb2.ListDomainsResponse(domains=sorted({one.domain for one in policies}))

    async def _policies(
        self, context: Context, domain: str = ""
    ) -> list[sensors_pb2.TracingPolicyStatus]:
        nodes = _chosen_nodes(context)
        request = bus_pb2.ControlRequest(list_policies=bus_pb2.ListPolicies(domain=domain))
        answers = await self._fleet.ask_nodes(request, nodes)
        if nodes and not answers:
            raise _no_answer(nodes)
        return [
            policy
            for answer in sorted(answers, key=lambda answer: answer.node.node_name)
            for policy in answer.policies
        ]

    async def _dump(self, nodes: frozenset[str]) -> sensors_pb2.GetDebugResponse:
        response = sensors_pb2.GetDebugResponse(flag=sensors_pb2.CONFIG_FLAG_DUMP_PROCESS_CACHE)
        response.processes.SetInParent()
        for snapshot in (await self._fleet.snapshot(nodes)).values():
            for event in snapshot.events:
                alive = events_pb2.GetEventsResponse.FromString(event)
                response.processes.processes.add(process=alive.process_exec.process)
        return response


def _unimplemented(name: str, why: str) -> Any:
    async def handle(request: bytes, context: Context) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not served: {why}")

    return handle


# The node that the request names, or the nodes that it is limited to; empty means all.
def _chosen_nodes(context: Context) -> frozenset[str]:
    metadata = context.invocation_metadata() or ()
    return rights.choose_nodes(
        frozenset(str(value) for key, value in metadata if key == NODE_KEY and value)
    )


def _no_answer(nodes: frozenset[str]) -> RequestError:
    return RequestError(f"node {', '.join(sorted(nodes))}: no answer", grpc.StatusCode.UNAVAILABLE)


# An address may carry a user and a password.
def _without_user(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    return scheme + separator + rest.rpartition("@")[2] if separator else text


def _waiting(count: int) -> str:
    return "1 event waits" if count == 1 else f"{count} events wait"
