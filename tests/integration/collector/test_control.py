"""A collector's answers on the bus, as a gateway gets them."""

from pathlib import Path

import pytest

from bus.subjects import control_subject
from collector.bpf.kernel import KernelInfo
from collector.control import Control
from collector.delivery.publisher import Publisher, PublisherStatistics
from collector.delivery.spool import Run, Spool, SpoolStatistics
from collector.events.process import Encoder
from collector.losses import Losses
from collector.metadata.enricher import Enricher
from collector.pipeline import Pipeline
from collector.processes.cache import Image, Process, ProcessCache
from tetra.v1.bus_pb2 import ControlResponse


class NothingLost:
    """The kernel's counters, all zero."""

    def lookup(self, _key):
        return bytes(16)


@pytest.fixture
def control(tmp_path):
    own = Run("big", "boot", 1)
    cache, published = ProcessCache(), PublisherStatistics()
    losses = Losses(NothingLost(), cache, published, SpoolStatistics())
    publisher = Publisher(own, 1 << 20, losses.counters, Spool(tmp_path, own, 0), published)
    events: list[bytes] = []
    pipeline = Pipeline(cache, Enricher(tuple(range(10))), Encoder("big"), events.append)
    kernel = KernelInfo(**{name: () if name == "features" else "" for name in KernelInfo._fields})
    return Control("boot", kernel._replace(headers=Path()), publisher, pipeline, losses)


async def test_a_request_that_is_none_is_answered_so(control, nc):
    await control.serve(nc)
    for data, text in ((b"\xff\xff", "malformed"), (b"", "not known")):
        reply = await nc.request(control_subject("big"), data, timeout=30)
        assert text in ControlResponse.FromString(reply.data).error


async def test_an_answer_that_is_none_keeps_no_collector_from_starting(control, nc):
    async def answer(message):
        await message.respond(b"\xff\xff")

    await nc.subscribe(control_subject("big"), cb=answer)
    await nc.flush()
    await control.refuse_second(nc)


async def test_a_snapshot_larger_than_a_message_comes_whole(control, gateway, nc):
    count = 20_000
    for pid in range(1, count + 1):
        image = Image("/usr/bin/x", arguments="y" * 400)
        control.pipeline.cache.add(Process(pid, pid, (0, 1), 1, pid, False, image), 0.0)
    await control.serve(nc)
    await nc.flush()
    assert len(await gateway.gateway.fleet.describe()) == 1
    snapshot = (await gateway.gateway.fleet.snapshot(frozenset()))["big"]
    assert len(snapshot.events) == count
    assert sum(map(len, snapshot.events)) > 8 << 20
    call = await gateway.stream(snapshot=True)
    told = 0
    while told < count:
        told += len((await call.read()).events)
    assert told == count
