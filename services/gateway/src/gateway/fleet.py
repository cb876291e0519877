"""The collectors: their list, whether they are alive, and requests to them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.errors import Error
from nats.js.errors import APIError

from bus import control, subjects
from bus.connection import until_cancelled
from eventstream.batch import Batch, without_malformed
from eventstream.errors import BusError
from eventstream.history import decode
from gateway.identities import GONE_AFTER_S, Identities, Identity
from tetra.v1 import bus_pb2, node_pb2

POLL_S = 4.0
ANSWER_S = 1.0
LOAD_EVERY_S = 60.0  # nodes that are in the stream and do not answer
# A collector that has events and stores none in the stream for this long is stalled. It is longer
# than the collector's own timeout and wait between attempts.
STALLED_AFTER_S = 15.0
SNAPSHOT_S = 10.0

_log = structlog.get_logger()


@dataclass(slots=True)
class _Node:
    info: node_pb2.NodeInfo
    heard_at: float | None  # monotonic; None: known from the stream only
    # Of this boot: the number of the last event seen in the stream, or, when first asked, made.
    boot_id: str = ""
    stored_sequence: int = 0
    waiting: int = 0  # events made that are not in the stream, by its last answer
    waiting_since: float | None = None  # monotonic: nothing was stored from then on
    identities: Identities = field(default_factory=Identities)


@dataclass(slots=True)
class Snapshot:
    """The processes alive on one node, up to and with event ``sequence`` of ``boot_id``."""

    boot_id: str
    sequence: int
    events: list[bytes] = field(default_factory=list)


class Fleet:
    """Every node that is known, alive or not."""

    def __init__(self, nc: Client, has_clients: Callable[[], bool] = bool) -> None:
        """``has_clients``: whether a client of this gateway has a stream open."""
        self._nc = nc
        self._has_clients = has_clients
        self._nodes: dict[str, _Node] = {}
        self._stored_at = time.monotonic()

    async def run(self) -> None:
        """Ask all collectors to describe themselves, at intervals, until cancelled."""
        loaded_at = -LOAD_EVERY_S
        while True:
            try:
                if time.monotonic() - loaded_at >= LOAD_EVERY_S:
                    await until_cancelled(self._load())
                    loaded_at = time.monotonic()
                await until_cancelled(self._poll())
            except (BusError, Error, TimeoutError):
                pass  # the subscriber logs it
            await asyncio.sleep(POLL_S * 7 / 8)

    def on_batch(self, batch: Batch) -> None:
        """Note that the batch's node is alive."""
        if not batch.node_name:
            return
        node = self._heard(batch.node_name)
        node.boot_id, node.stored_sequence = batch.boot_id, batch.last_sequence
        node.waiting, node.waiting_since = 0, None
        self._stored_at = time.monotonic()
        info = node.info
        if info.boot_id != batch.boot_id:
            info.boot_id = batch.boot_id
        info.collector_start.FromNanoseconds(batch.collector_start_ns)
        info.loss.CopyFrom(batch.loss)
        info.last_sequence = batch.last_sequence
        info.last_seen.FromNanoseconds(batch.stored_ns)

    def nodes(self) -> list[node_pb2.NodeInfo]:
        """Return what is known of every node, by name."""
        now = time.monotonic()
        for node in self._nodes.values():
            node.info.alive = node.heard_at is not None and now - node.heard_at < GONE_AFTER_S
            del node.info.others[:]
            for other in node.identities.others(now):
                node.info.others.add(boot_id=other.boot_id).collector_start.FromNanoseconds(
                    other.start_ns
                )
        return [self._nodes[name].info for name in sorted(self._nodes)]

    def waiting(self) -> dict[str, int]:
        """Return how many events each node has made that are not in the stream."""
        return {name: node.waiting for name, node in self._nodes.items()}

    def stalled(self) -> list[str]:
        """Return the nodes that are alive, have events, and store none in the stream."""
        before = time.monotonic() - STALLED_AFTER_S
        alive = {info.node_name for info in self.nodes() if info.alive}
        return [
            name
            for name, node in sorted(self._nodes.items())
            if name in alive and node.waiting_since is not None and node.waiting_since < before
        ]

    @property
    def stream_is_stuck(self) -> bool:
        """Whether the stream stores no events from any node although collectors have some.

        A nats-server can bring a stream into a state in which it never acknowledges anything again.
        Only publishers notice that; collectors report how many events wait.
        """
        quiet = time.monotonic() - self._stored_at > STALLED_AFTER_S
        return quiet and bool(self.stalled())

    async def describe(self) -> list[node_pb2.NodeInfo]:
        """Ask every collector about itself; return what is then known of every node."""
        await self.ask(bus_pb2.ControlRequest(describe=True))
        return self.nodes()

    # A second collector of a name may be the slower one each time.
    async def _poll(self) -> None:
        request = bus_pb2.ControlRequest(describe=True, clients_read=self._has_clients())
        await self.ask(request, linger_s=POLL_S / 8)

    async def announce_client(self) -> None:
        """Tell all collectors that a client reads events live; each poll repeats it."""
        request = bus_pb2.ControlRequest(clients_read=True)
        with contextlib.suppress(Error):  # not connected: a poll follows
            await self._nc.publish(subjects.CONTROL_ALL, request.SerializeToString())

    async def snapshot(self, names: frozenset[str]) -> dict[str, Snapshot]:
        """Return the processes alive on the nodes ``names``, on all nodes where empty."""
        request = bus_pb2.ControlRequest(snapshot=True)
        answers = await self.ask_nodes(request, names, SNAPSHOT_S)
        snapshots: dict[str, Snapshot] = {}
        for answer in answers:
            node = answer.node
            if answer.error:
                _log.warning("snapshot refused", node=node.node_name, error=answer.error)
                continue
            part = snapshots.setdefault(node.node_name, Snapshot(node.boot_id, answer.sequence))
            part.events += filter(None, without_malformed(list(answer.events), node.node_name))
        return snapshots

    async def ask_nodes(
        self, request: bus_pb2.ControlRequest, nodes: frozenset[str], timeout_s: float = ANSWER_S
    ) -> list[bus_pb2.ControlResponse]:
        """Ask each of ``nodes``, all nodes where empty; return the answers as `ask` does."""
        if not nodes:
            return await self.ask(request, timeout_s=timeout_s)
        asked = await asyncio.gather(
            *(self.ask(request, node, timeout_s) for node in sorted(nodes))
        )
        return [answer for answers in asked for answer in answers]

    async def ask(
        self,
        request: bus_pb2.ControlRequest,
        node: str = "",
        timeout_s: float = ANSWER_S,
        *,
        linger_s: float = 0.0,
    ) -> list[bus_pb2.ControlResponse]:
        """Ask one collector, or all; return the answers that came within ``timeout_s``.

        It ends ``linger_s`` after every collector that is alive has answered.
        """
        alive = {info.node_name for info in self.nodes() if info.alive}
        expected = {node} if node else set(alive)
        answers: list[bus_pb2.ControlResponse] = []

        def receive(name: str, data: bytes) -> bool:
            try:
                answer = bus_pb2.ControlResponse.FromString(data)
            except DecodeError:
                _log.warning("answer malformed", node=name)
                return False
            if answer.node.node_name != name:
                _log.warning("answer names another node", node=name, named=answer.node.node_name)
                return False
            answers.append(answer)
            self._on_answer(answer)
            if not answer.more:
                expected.discard(name)
            # While no node is known, wait the full time for collectors that may answer.
            return not expected and bool(alive or node)

        limit_s = timeout_s if alive or node else ANSWER_S
        try:
            data = request.SerializeToString()
            await control.ask(self._nc, node, data, receive, limit_s, linger_s)
        except Error as error:
            raise BusError(f"control: nats: {str(error) or type(error).__name__}") from None
        return answers

    def _on_answer(self, answer: bus_pb2.ControlResponse) -> None:
        if not answer.node.node_name:
            return
        node = self._heard(answer.node.node_name)
        self._note_identity(node, answer.node)
        node.info.CopyFrom(answer.node)
        node.info.last_seen.GetCurrentTime()
        made = answer.node.last_sequence
        # Batches show it too, but are not read while no client has a stream open.
        stored = answer.node.stored_sequence if answer.node.HasField("stored_sequence") else None
        if node.boot_id != answer.node.boot_id:  # what the stream had of it may have aged out
            node.boot_id = answer.node.boot_id
            node.stored_sequence = made if stored is None else stored
        elif stored is not None and stored > node.stored_sequence:
            node.stored_sequence, node.waiting_since = stored, None
            self._stored_at = time.monotonic()
        node.waiting = max(0, made - node.stored_sequence)
        if not node.waiting:
            node.waiting_since = None
        elif node.waiting_since is None:
            node.waiting_since = time.monotonic()

    def _note_identity(self, node: _Node, info: node_pb2.NodeInfo) -> None:
        identity = Identity(info.boot_id, info.collector_start.ToNanoseconds())
        if node.identities.hear(identity, time.monotonic()):
            _log.warning(
                "node name used by two hosts", node=info.node_name, boot_id=info.boot_id,
                other_boot_id=node.info.boot_id,
            )  # fmt: skip

    def _heard(self, name: str) -> _Node:
        node = self._nodes.get(name)
        if node is None:
            node = self._nodes[name] = _Node(node_pb2.NodeInfo(node_name=name), None)
        node.heard_at = time.monotonic()
        return node

    # Nodes with events in the stream; they may no longer exist.
    async def _load(self) -> None:
        js = self._nc.jetstream()
        found = await js.stream_info(subjects.EVENTS_STREAM, subjects_filter=subjects.EVENTS_ALL)
        for subject in found.state.subjects or {}:
            if subjects.node_of(subject) in self._nodes:
                continue
            try:
                message = await js.get_last_msg(subjects.EVENTS_STREAM, subject, direct=True)
            except APIError:
                continue  # aged out meanwhile
            stored_ns = int(message.time.timestamp() * 1e9) if message.time else 0
            batch = decode(message.data or b"", subject, message.seq or 0, stored_ns)
            if batch.node_name and batch.node_name not in self._nodes:
                self.on_batch(batch)
                self._nodes[batch.node_name].heard_at = None
