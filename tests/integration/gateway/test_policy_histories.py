"""Random histories of changes against a model, while a node and a gateway come and go.

`TETRA_SEED` and `TETRA_HISTORIES` choose others.
"""

import asyncio
import os
import random
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import pytest

import gateway.fleet as gateway_fleet
from bus.policies import selects
from gateway.settings import Settings
from support.fleet import document, fleet, known
from support.gateways import running
from support.waiting import eventually
from tetra.v1 import policies_pb2 as pb
from tetra.v1 import policies_pb2_grpc
from tetragon.sensors_pb2 import TP_MODE_ENFORCE, TP_MODE_MONITOR

SEED = int(os.environ.get("TETRA_SEED", "12"))
HISTORIES = int(os.environ.get("TETRA_HISTORIES", "200"))
CHANGES = 5  # of one history
AT_ONCE = 10
NODES = {"n1": {"zone": "a"}, "n2": {"zone": "b"}, "n3": {"zone": "b"}, "comes": {"zone": "a"}}
# Functions, each with the nodes that do not have it.
CALLS: dict[str, set[str]] = {
    "fd_install": set(), "vfs_read": set(), "only_one": {"n2", "n3"}, "missing": set(NODES),
}  # fmt: skip
SELECTORS = (
    pb.NodeSelector(),
    pb.NodeSelector(names=["n?"]),
    pb.NodeSelector(names=["n1"]),
    pb.NodeSelector(labels={"zone": "b"}),
    pb.NodeSelector(except_names=["n1"]),
)
OK, MISSING, EXISTS = grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS
REFUSED = grpc.StatusCode.FAILED_PRECONDITION
# The gateway was ended, or has not finished an earlier change.
RETRIED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED
LONG_S = 60
RIGHT_S = 20


@dataclass(frozen=True)
class Wanted:
    """What is current."""

    call: str
    mode: str = "enforce"
    enabled: bool = True
    nodes: pb.NodeSelector = field(default_factory=pb.NodeSelector)


@dataclass
class Model:
    """One policy as its changes left it."""

    name: str
    current: Wanted | None = None
    revisions: dict[int, Wanted] = field(default_factory=dict)  # with a document
    newest: int = 0  # revision of the current, deleted or not

    def expects(self, node, on):
        """Return whether what a node has on is right."""
        wanted = self.current
        if wanted is None or not wanted.enabled or not selects(wanted.nodes, node, NODES[node]):
            return on is None
        if node in CALLS[wanted.call]:  # an earlier revision may be on
            return on is None or on[0] != wanted.call
        return on == (wanted.call, wanted.mode)


class Stubs(list[Any]):
    """Of the gateways that run; how often the second has ended."""

    ended = 0

    async def wait_ended(self, before):
        """Return when the gateway that ran has ended: it changes nothing from then on."""
        await eventually(lambda: self.ended > before, LONG_S)


class History:
    """Changes of one policy through any of the gateways."""

    def __init__(self, seed, stubs):
        self.random = random.Random(seed)
        self.stubs = stubs
        self.model = Model(f"h{seed}")
        self.log = []

    async def change(self):
        """Make a random change, and compare the answer with the model's."""
        model, pick = self.model, self.random
        ref = pb.PolicyRef(name=model.name)
        rollout = pick.choice((pb.ROLLOUT_ALL_OR_NOTHING, pb.ROLLOUT_WHEREVER))
        kind = pick.choice(("add", "replace", "replace", "delete", "enable", "disable", "mode",
                            "nodes", "rollback"))  # fmt: skip
        now = model.current
        match kind:
            case "add" | "replace":
                wanted = Wanted(pick.choice(list(CALLS)), nodes=pick.choice(SELECTORS))
                adding = pb.AddPolicyRequest(
                    yaml=document(model.name, wanted.call, "Sigkill"), nodes=wanted.nodes,
                    rollout=rollout, replace=kind == "replace",
                )  # fmt: skip
                expected = EXISTS if now and kind == "add" else OK
                await self.carry_out("AddPolicy", adding, expected, wanted)
            case "delete":
                await self.carry_out(
                    "DeletePolicy", pb.DeletePolicyRequest(policy=ref), OK if now else MISSING, None
                )
            case "enable" | "disable" | "mode" | "nodes":
                request = pb.ConfigurePolicyRequest(policy=ref, rollout=rollout)
                expected, wanted = OK, now
                if kind == "mode":
                    request.mode = pick.choice((TP_MODE_ENFORCE, TP_MODE_MONITOR))
                    mode = "enforce" if request.mode == TP_MODE_ENFORCE else "monitor"
                    expected = OK if now and now.enabled else REFUSED
                    wanted = now and replace(now, mode=mode)
                elif kind == "nodes":
                    request.nodes.CopyFrom(pick.choice(SELECTORS))
                    wanted = now and replace(now, nodes=request.nodes)
                else:
                    request.enable = kind == "enable"
                    expected = OK if now and now.enabled != request.enable else REFUSED
                    wanted = now and replace(now, enabled=request.enable)
                expected = expected if now else MISSING
                await self.carry_out("ConfigurePolicy", request, expected, wanted)
            case "rollback":
                earlier = [one for one in model.revisions if one != model.newest]
                revision = pick.choice(earlier) if earlier else 1000
                rolling = pb.RollbackPolicyRequest(policy=ref, revision=revision, rollout=rollout)
                wanted = model.revisions.get(revision)
                expected = OK if earlier else MISSING
                await self.carry_out("RollbackPolicy", rolling, expected, wanted)

    async def carry_out(self, method, request, expected, wanted):
        """Call a gateway that answers; where it went away meanwhile, see what it has done."""
        while True:
            stub, ended = self.random.choice(self.stubs), self.stubs.ended
            change = None
            try:
                change = await getattr(stub, method)(request, timeout=LONG_S)
                code = OK
            except grpc.aio.AioRpcError as error:
                code = error.code()
                self.log.append((method, str(error.details())))
            except asyncio.CancelledError:  # the channel was closed
                code = grpc.StatusCode.CANCELLED
            if code in RETRIED and code != grpc.StatusCode.ABORTED and stub is not self.stubs[0]:
                await self.stubs.wait_ended(ended)
            if code in RETRIED:
                if await self.was_done(request, wanted):
                    return
                await asyncio.sleep(0.1)
                continue
            break
        self.log.append((method, code.name, change and (change.revision, change.error)))
        assert code == expected, self.log
        if change is None:
            return
        if change.error:
            assert wanted is not None, self.log
            assert request.rollout == pb.ROLLOUT_ALL_OR_NOTHING, self.log
            assert any(selects(wanted.nodes, one, NODES[one]) for one in CALLS[wanted.call])
            if "not carried out" in change.error:
                return
            assert "stored" in change.error, self.log  # it is current; a node could not load it
        self.take(change.revision, wanted)

    async def was_done(self, request, wanted):
        """Return whether the newest revision is one that the model does not know."""
        while True:
            ref = pb.PolicyRef(name=self.model.name)
            history = pb.GetPolicyHistoryRequest(policy=ref)
            try:
                stub = self.stubs[0]
                newest = (await stub.GetPolicyHistory(history, timeout=LONG_S)).revisions[0]
            except grpc.aio.AioRpcError as error:
                if error.code() == MISSING:
                    return False
                await asyncio.sleep(0.1)
                continue
            if newest.revision == self.model.newest:
                return False
            self.log.append(("done by a gateway that ended", newest.revision))
            self.take(newest.revision, wanted)
            return True

    def take(self, revision, wanted):
        self.model.newest, self.model.current = revision, wanted
        if wanted is not None:
            self.model.revisions[revision] = wanted


@pytest.fixture
async def stubs(nats_server, nodes, monkeypatch):
    """Two gateways; the second is ended and started again and again."""
    monkeypatch.setattr(gateway_fleet, "POLL_S", 0.2)
    monkeypatch.setattr(gateway_fleet, "GONE_AFTER_S", 1.0)
    options: dict[str, Any] = {"nats_url": nats_server.url, "listen_address": "127.0.0.1:0"}
    settings = Settings(**options)
    found, ending = Stubs(), asyncio.Event()

    async def come_and_go():
        while not ending.is_set():
            async with running(settings) as second:
                found[1:] = [policies_pb2_grpc.PoliciesStub(second.channel)]
                await wait_some(ending, 1.5)
                found[1:] = []
            found.ended += 1

    async with running(settings) as first:
        found.append(policies_pb2_grpc.PoliciesStub(first.channel))
        await known(first.gateway.fleet, nodes)
        task = asyncio.create_task(come_and_go())
        yield found
        ending.set()
        await task


@pytest.fixture
async def nodes(nats_server, tmp_path):
    async with AsyncExitStack() as stack:
        found = await stack.enter_async_context(fleet(nats_server.url, tmp_path / "nodes"))
        for name, labels in NODES.items():
            refused = {call for call, without in CALLS.items() if name in without}
            found.start(name, labels=labels, refused=refused)
        yield found


async def wait_some(ending, time_s):
    with suppress(TimeoutError):
        async with asyncio.timeout(time_s):
            await ending.wait()


async def test_the_fleet_ends_as_the_model_says(nodes, stubs):
    histories = [History(SEED * 100_000 + number, stubs) for number in range(HISTORIES)]
    waiting = list(histories)

    async def run_some():
        while waiting:
            history = waiting.pop()
            for _ in range(CHANGES):
                await history.change()
            ref = pb.PolicyRef(name=history.model.name)
            if history.model.current and len(waiting) % 4:  # some stay until the end
                await history.carry_out(
                    "DeletePolicy", pb.DeletePolicyRequest(policy=ref), OK, None
                )

    ending = asyncio.Event()

    async def come_and_go():
        while not ending.is_set():
            await wait_some(ending, 0.7)
            await nodes.stop("comes")
            await wait_some(ending, 0.7)
            nodes.start("comes")

    disturbing = asyncio.create_task(come_and_go())
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(run_some())
    finally:
        ending.set()
        await disturbing

    def wrong():
        return [
            (history.model, name, on, history.log)
            for name, node in nodes.nodes.items()
            for on_all in [node.active()]
            for history in histories
            for on in [on_all.get(f"grpc:{history.model.name}")]
            if not history.model.expects(name, on)
        ]

    try:
        await eventually(lambda: not wrong(), RIGHT_S, 0.2)
    except TimeoutError:
        pytest.fail(f"seed {SEED}: {wrong()[:3]}")
    left = [
        made.call for node in nodes.nodes.values() for made in node.installed if made.mode is None
    ]
    assert left == []  # what is not on is not loaded
    assert sum(len(history.log) for history in histories) >= HISTORIES * CHANGES
