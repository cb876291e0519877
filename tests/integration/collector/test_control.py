"""A collector's answers on the bus, as a gateway gets them."""

from pathlib import Path

from collector.control import Control
from collector.enricher import Enricher
from collector.events import Encoder
from collector.kernel import KernelInfo
from collector.losses import Losses
from collector.pipeline import Pipeline
from collector.process_cache import Image, Process, ProcessCache
from collector.publisher import Publisher, PublisherStatistics
from collector.spool import Run, Spool, SpoolStatistics


class NothingLost:
    """The kernel's counters, all zero."""

    def lookup(self, _key):
        return bytes(16)


async def test_a_snapshot_larger_than_a_message_comes_whole(gateway, nc, tmp_path):
    own = Run("big", "boot", 1)
    cache, published = ProcessCache(), PublisherStatistics()
    losses = Losses(NothingLost(), cache, published, SpoolStatistics())
    publisher = Publisher(own, 1 << 20, losses.counters, Spool(tmp_path, own, 0), published)
    events: list[bytes] = []
    pipeline = Pipeline(cache, Enricher(tuple(range(10))), Encoder("big"), events.append)
    count = 20_000
    for pid in range(1, count + 1):
        image = Image("/usr/bin/x", arguments="y" * 400)
        cache.add(Process(pid, pid, (0, 1), 1, pid, False, image), 0.0)
    kernel = KernelInfo(**{name: () if name == "features" else "" for name in KernelInfo._fields})
    control = Control("boot", kernel._replace(headers=Path()), publisher, pipeline, losses)
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
