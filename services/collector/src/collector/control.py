"""Answers requests on the bus: describe the node, list its processes, set the log level.

Gateways also say here whether clients read events live.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

import structlog
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from bus import control, subjects
from bus.policies import TRY_DOMAIN
from chassis import logging
from collector.bpf.kernel import KernelInfo
from collector.delivery.publisher import Publisher
from collector.errors import SecondCollector
from collector.losses import Losses
from collector.policies.status import PolicyStatus
from collector.policies.tries import Tries
from collector.processes.table import ProcessTable
from tetra.v1.bus_pb2 import ControlRequest, ControlResponse
from tetra.v1.node_pb2 import NodeInfo
from tetra.v1.plans_pb2 import NodePlan, PlanOnNode
from tetragon.sensors_pb2 import TracingPolicyStatus

_ASK_TIMEOUT_S = 0.5
_RATE_OVER_S = 10.0
_PART_BYTES = 512 << 10  # of a snapshot, in one message
_LEVELS = ("debug", "info", "warning", "error")

log = structlog.get_logger()


def _ignore() -> None:
    """Ignore that clients read."""


def _no_policies(_node_name: str, _domain: str) -> list[TracingPolicyStatus]:
    return []


@dataclass(slots=True)
class Control:
    """Serves tetra.control and tetra.control.<node>."""

    boot_id: str
    kernel: KernelInfo
    publisher: Publisher
    table: ProcessTable
    snapshot: Callable[[], list[bytes]]
    losses: Losses
    policies: Callable[[str, str], list[TracingPolicyStatus]] = _no_policies
    policy_status: PolicyStatus | None = None
    tries: Tries | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    explain: Callable[[PlanOnNode], Awaitable[NodePlan]] | None = None
    clients_read: Callable[[], None] = _ignore
    _rates: deque[tuple[float, int]] = field(default_factory=deque)
    _plans: set[asyncio.Task[None]] = field(default_factory=set)

    async def refuse_second(self, nc: Client) -> None:
        """Raise `SecondCollector` if another collector answers for this node."""
        answers: list[bytes] = []

        def receive(_: str, data: bytes) -> bool:
            answers.append(data)
            return True

        name = self.publisher.node_name
        request = ControlRequest(describe=True).SerializeToString()
        try:
            await control.ask(nc, name, request, receive, _ASK_TIMEOUT_S)
            if not answers:
                return
            node = ControlResponse.FromString(answers[0]).node
        except NatsError:
            return
        except DecodeError:
            log.warning("answer malformed", node=name)
            return
        if node.boot_id == self.boot_id:
            raise SecondCollector(
                f"node {node.node_name}: another collector runs on this host, since "
                f"{node.collector_start.ToJsonString()}: stop it first"
            )
        log.warning("node name used by another host", node=node.node_name, boot_id=node.boot_id)

    async def serve(self, nc: Client) -> None:
        """Subscribe to the control subjects."""

        async def answer(message: Msg) -> None:
            await self._answer(nc, message)

        async def answer_gateway(message: Msg) -> None:
            self._note_clients(message)
            await self._answer(nc, message)

        await nc.subscribe(subjects.CONTROL_ALL, cb=answer_gateway)
        await nc.subscribe(subjects.control_subject(self.publisher.node_name), cb=answer)

    def describe(self) -> NodeInfo:
        """Return the identity of the node and its current counters."""
        publisher = self.publisher
        node = NodeInfo(
            node_name=publisher.node_name,
            boot_id=self.boot_id,
            kernel=self.kernel.release,
            machine=self.kernel.machine,
            collector_version=version("tetra-collector"),
            events_total=publisher.statistics.made,
            events_per_second=self._rate(),
            loss=self.losses.counters(),
            log_level=logging.get_level(),
            alive=True,
            last_sequence=publisher.last_sequence,
            stored_sequence=max(0, publisher.last_sequence - publisher.waiting),
            processes=len(self.table.all_living()),
            labels=self.labels,
            policies=self.policy_status.summary() if self.policy_status else None,
        )
        node.collector_start.FromNanoseconds(publisher.start_time_ns)
        node.last_seen.GetCurrentTime()
        return node

    def sample(self) -> None:
        """Record the number of events, for the rate; called every few seconds."""
        now = time.monotonic()
        self._rates.append((now, self.publisher.statistics.made))
        while len(self._rates) > 2 and self._rates[0][0] < now - _RATE_OVER_S:
            self._rates.popleft()

    def _rate(self) -> float:
        self.sample()
        (first_s, first), (last_s, last) = self._rates[0], self._rates[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0

    def _note_clients(self, message: Msg) -> None:
        if message.headers:  # a message of the stream, which JetStream was asked to send here
            return
        with contextlib.suppress(DecodeError):
            if ControlRequest.FromString(message.data).clients_read:
                self.clients_read()

    async def _answer(self, nc: Client, message: Msg) -> None:
        if not control.is_request(message):
            return
        response = ControlResponse()
        try:
            request = ControlRequest.FromString(message.data)
            match request.WhichOneof("request"):
                case "set_log_level":
                    if request.set_log_level in _LEVELS:
                        logging.set_level(request.set_log_level)
                        log.info("log level set", level=request.set_log_level)
                    else:
                        response.error = (
                            f"log level {request.set_log_level!r}: one of " + ", ".join(_LEVELS)
                        )
                case "snapshot":
                    response.sequence = self.publisher.last_sequence
                    await self._answer_parts(nc, message, response, self.snapshot())
                case "list_policies":
                    response.policies.extend(
                        self.policies(self.publisher.node_name, request.list_policies.domain)
                    )
                case "policy_status" if self.policy_status:
                    response.policy_status.CopyFrom(self.policy_status.current())
                case "try_policy" if self.policy_status and self.tries:
                    response.error = self.tries.handle(request.try_policy)
                    response.policy_status.CopyFrom(
                        self.policy_status.only(TRY_DOMAIN, request.try_policy.policy_name)
                    )
                case "plan_policy" if self.explain:
                    self._begin_plan(nc, message, self.explain(request.plan_policy))
                    return
                case None:
                    response.error = "request not known to this collector"
        except DecodeError as error:
            response.error = f"request malformed: {error}"
        await self._respond(nc, message, response)

    def _begin_plan(self, nc: Client, message: Msg, plan: Awaitable[NodePlan]) -> None:
        """Answer when the plan is made; other requests are answered meanwhile."""

        async def answer() -> None:
            try:
                response = ControlResponse(plan=await plan)
            except Exception:  # an error here must not leave the gateway without an answer
                log.exception("policy not planned")
                response = ControlResponse(error="planning failed: the collector's log says why")
            await self._respond(nc, message, response)

        task = asyncio.create_task(answer())
        self._plans.add(task)
        task.add_done_callback(self._plans.discard)

    async def _answer_parts(
        self, nc: Client, message: Msg, last: ControlResponse, events: list[bytes]
    ) -> None:
        """Send the events in parts; the last part is left in ``last``, which the caller sends."""
        size = 0
        for event in events:
            size += len(event)
            if size > _PART_BYTES:
                part = ControlResponse(sequence=last.sequence, events=last.events, more=True)
                await self._respond(nc, message, part)
                del last.events[:]
                size = len(event)
            last.events.append(event)

    async def _respond(self, nc: Client, message: Msg, response: ControlResponse) -> None:
        response.node.CopyFrom(self.describe())
        try:
            await control.answer(
                nc, message, self.publisher.node_name, response.SerializeToString()
            )
        except NatsError as error:
            log.warning("answer not sent", error=repr(error))
