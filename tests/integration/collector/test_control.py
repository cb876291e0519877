"""A collector's answers on the bus, as a gateway gets them."""

import asyncio
from functools import partial

import pytest

from bus import control as bus_control
from bus.subjects import CONTROL_ALL, control_subject, reply_subject
from chassis import logging
from collector import running
from collector.bpf.kernel import KernelInfo
from collector.control import Control
from collector.delivery.publisher import Publisher
from collector.delivery.segments import Run
from collector.delivery.spool import Spool
from collector.delivery.statistics import PublisherStatistics
from collector.events.encoder import Encoder
from collector.losses import Losses
from collector.processes.table import Image, Process, ProcessTable
from support.stages import NothingLost
from support.waiting import eventually
from tetra.v1.bus_pb2 import ControlRequest, ControlResponse
from tetra.v1.plans_pb2 import NodePlan


@pytest.fixture
def control(tmp_path):
    own = Run("big", "boot", 1)
    table, published = ProcessTable(), PublisherStatistics()
    losses = Losses(NothingLost(), (), {}, noted=lambda _: None)
    publisher = Publisher(own, 1 << 20, losses.counters, Spool(tmp_path, 0), published)
    snapshot = partial(running.snapshot, table, Encoder("big"))
    kernel = KernelInfo(**{name: () if name == "features" else "" for name in KernelInfo._fields})
    return Control("boot", kernel, publisher, table, snapshot, losses)


async def ask_one(nc, data):
    """Return the first answer of the node."""
    answers = []

    def receive(_, answer):
        answers.append(ControlResponse.FromString(answer))
        return True

    await bus_control.ask(nc, "big", data, receive, 30)
    return answers[0]


async def test_malformed_request_is_answered_with_an_error(control, nc):
    await control.serve(nc)
    for data, text in ((b"\xff\xff", "malformed"), (b"", "not known")):
        assert text in (await ask_one(nc, data)).error


async def test_malformed_request_changes_nothing(control, nc):
    await control.serve(nc)
    before = logging.get_level()
    level = "error" if before != "error" else "info"
    order = ControlRequest(set_log_level=level).SerializeToString()
    subject = control_subject("big")
    await nc.publish(subject, order)
    await nc.publish(subject, order, reply="_INBOX.elsewhere")
    # As JetStream sends a message of the stream to a reply subject.
    reflected = {"Nats-Stream": "TETRA_EVENTS", "Nats-Subject": "tetra.events.other"}
    await nc.publish(subject, order, reply=reply_subject("t"), headers=reflected)
    assert (await ask_one(nc, ControlRequest(describe=True).SerializeToString())).node
    assert logging.get_level() == before


async def test_malformed_answer_does_not_keep_a_collector_from_starting(control, nc):
    async def answer(message):
        await bus_control.answer(nc, message, "big", b"\xff\xff")

    await nc.subscribe(control_subject("big"), cb=answer)
    await nc.flush()
    await control.refuse_second(nc)


async def test_a_snapshot_larger_than_a_message_arrives_complete(control, gateway, nc):
    count = 20_000
    for pid in range(1, count + 1):
        image = Image("/usr/bin/x", arguments="y" * 400)
        control.table.add(Process(pid, pid, (0, 1), 1, pid, False, image), 0.0)
    await control.serve(nc)
    await nc.flush()
    await eventually(gateway.gateway.fleet.describe)
    snapshot = (await gateway.gateway.fleet.snapshot(frozenset()))["big"]
    assert len(snapshot.events) == count
    assert sum(map(len, snapshot.events)) > 8 << 20
    call = await gateway.stream(snapshot=True)
    received = 0
    while received < count:
        received += len((await call.read()).events)
    assert received == count


async def test_a_plan_that_takes_long_holds_up_no_other_request(control, nc):
    ready = asyncio.Event()

    async def explain(request):
        await ready.wait()
        return NodePlan(kernel=request.yaml)

    control.explain = explain
    await control.serve(nc)
    request = ControlRequest(plan_policy={"yaml": "x"}).SerializeToString()
    planned = asyncio.create_task(ask_one(nc, request))
    assert (await ask_one(nc, ControlRequest(describe=True).SerializeToString())).node.node_name
    assert not planned.done()
    ready.set()
    assert (await planned).plan.kernel == "x"


async def test_a_plan_that_fails_is_answered(control, nc):
    async def explain(request):
        raise ZeroDivisionError

    control.explain = explain
    await control.serve(nc)
    answer = await ask_one(nc, ControlRequest(plan_policy={"yaml": "x"}).SerializeToString())
    assert answer.error == "planning failed: the collector's log says why"
    assert answer.node.node_name == "big"


async def test_gateways_with_clients_say_so(control, gateway, nc, monkeypatch):
    monkeypatch.setattr("gateway.fleet.POLL_S", 0.1)
    said = []
    control.clients_read = lambda: said.append(1)
    await control.serve(nc)
    await nc.flush()
    await gateway.gateway.fleet.describe()
    await asyncio.sleep(0.5)  # several polls
    assert not said
    call = await gateway.stream()
    assert said  # at once: the collector heard it before the stream was open
    before = len(said)
    await eventually(lambda: len(said) > before + 1)  # with each poll
    call.cancel()
    await eventually(lambda: not gateway.gateway.streams)
    await gateway.gateway.fleet.describe()
    before = len(said)
    await asyncio.sleep(0.5)
    assert len(said) <= before + 1  # of a poll that was under way


async def test_only_a_gateway_says_that_clients_read(control, nc):
    said = []
    control.clients_read = lambda: said.append(1)
    await control.serve(nc)
    message = ControlRequest(clients_read=True).SerializeToString()
    await nc.publish(control_subject("big"), message)
    await nc.publish(CONTROL_ALL, message, headers={"Nats-Stream": "TETRA_EVENTS"})
    await nc.publish(CONTROL_ALL, b"\xff\xff")
    assert (await ask_one(nc, ControlRequest(describe=True).SerializeToString())).node
    assert not said
    await nc.publish(CONTROL_ALL, message)
    await eventually(lambda: said)
