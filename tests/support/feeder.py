"""A collector's voice without a collector: batches on a real NATS, answers on control subjects."""

from __future__ import annotations

import asyncio
import base64
import time
from contextlib import suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from bus import control, subjects
from tetra.v1 import bus_pb2, node_pb2
from tetragon import events_pb2, sensors_pb2

BOOT_ID = "b0000000-0000-4000-8000-000000000001"
START_NS = 1_700_000_000_000_000_000


def exec_event(
    number: int, *, node: str = "n1", time_ns: int | None = None, argument_bytes: int = 0
) -> bytes:
    """Return the exec of process ``number``, as bytes in the order that collectors write."""
    event = events_pb2.GetEventsResponse(node_name=node)
    ktime_ns = number * 1000
    process = event.process_exec.process
    process.exec_id = base64.b64encode(f"{node}:{ktime_ns}:{number}".encode()).decode()
    process.pid.value = number
    process.binary = "/usr/bin/true"
    process.arguments = str(number) + "x" * argument_bytes
    process.flags = "execve clone"
    event.process_exec.parent.pid.value = 1
    event.process_exec.parent.binary = "/usr/sbin/init"
    event.time.FromNanoseconds(time.time_ns() if time_ns is None else time_ns)
    return event.SerializeToString()


def number_of(event: events_pb2.GetEventsResponse) -> int:
    """Return the number that `exec_event` was given."""
    return event.process_exec.process.pid.value


class Feeder:
    """One node's collector."""

    def __init__(self, nc: Client, node: str = "n1", boot_id: str = BOOT_ID) -> None:
        self.nc = nc
        self.js = nc.jetstream()
        self.node = node
        self.boot_id = boot_id
        self.start_ns = START_NS
        self.loss = node_pb2.LossCounters()
        self.sequence = 0  # of the last event
        self.stored_sequence = 0  # of the last event that was acknowledged
        self.alive: list[bytes] = []  # answered to a snapshot request
        self.log_level = "info"
        self.policies: list[sensors_pb2.TracingPolicyStatus] = []
        self.claimed_node = node  # in its answers
        self._answering: list[Subscription] = []

    def batch(self, events: list[bytes]) -> bus_pb2.EventBatch:
        """Return the next batch; its numbers follow the last one's."""
        batch = bus_pb2.EventBatch(
            node_name=self.node,
            boot_id=self.boot_id,
            first_sequence=self.sequence + 1,
            loss=self.loss,
            events=events,
        )
        batch.collector_start.FromNanoseconds(self.start_ns)
        self.sequence += len(events)
        return batch

    async def send(self, batch: bus_pb2.EventBatch, *, identified: bool = True) -> int:
        """Publish ``batch`` until it is acknowledged; return its number in the stream."""
        name = subjects.message_id(self.node, self.boot_id, batch.first_sequence)
        async with asyncio.timeout(30):
            while True:
                with suppress(NatsError, TimeoutError):
                    ack = await self.js.publish(
                        subjects.events_subject(self.node),
                        batch.SerializeToString(),
                        timeout=0.5,
                        headers={"Nats-Msg-Id": name} if identified else None,
                    )
                    self.stored_sequence = batch.first_sequence + len(batch.events) - 1
                    return ack.seq
                await asyncio.sleep(0.05)

    async def publish(self, count: int, per_batch: int = 10, argument_bytes: int = 0) -> list[int]:
        """Publish execs numbered on from the last; return their numbers."""
        numbers = list(range(self.sequence + 1, self.sequence + count + 1))
        for at in range(0, count, per_batch):
            part = numbers[at : at + per_batch]
            events = [exec_event(n, node=self.node, argument_bytes=argument_bytes) for n in part]
            await self.send(self.batch(events))
        return numbers

    async def answer(self) -> None:
        """Answer control requests until `be_silent`."""
        for subject in (subjects.CONTROL_ALL, subjects.control_subject(self.node)):
            self._answering.append(await self.nc.subscribe(subject, cb=self._answer))
        await self.nc.flush()

    async def be_silent(self) -> None:
        """Answer no more, as a collector that was killed."""
        for subscription in self._answering:
            await subscription.unsubscribe()
        self._answering.clear()
        await self.nc.flush()

    async def _answer(self, message: Msg) -> None:
        request = bus_pb2.ControlRequest.FromString(message.data)
        response = bus_pb2.ControlResponse()
        if request.WhichOneof("request") == "set_log_level":
            self.log_level = request.set_log_level
        if request.snapshot:
            response.events.extend(self.alive)
            response.sequence = self.sequence
        if request.WhichOneof("request") == "list_policies":
            domain = request.list_policies.domain
            response.policies.extend(p for p in self.policies if domain in ("", p.domain))
        response.node.node_name = self.claimed_node
        response.node.boot_id = self.boot_id
        response.node.log_level = self.log_level
        response.node.last_sequence = self.sequence
        response.node.stored_sequence = self.stored_sequence
        response.node.loss.CopyFrom(self.loss)
        response.node.kernel = "6.1.0"
        await control.answer(self.nc, message, self.node, response.SerializeToString())
