"""Events move from memory to disk."""

import asyncio

from collector.delivery.backlog import Backlog
from collector.delivery.disk import DiskThread
from collector.delivery.segments import Run
from collector.delivery.spilling import Spilling
from collector.delivery.spool import Spool
from collector.delivery.statistics import PublisherStatistics
from tetra.v1.node_pb2 import LossCounters


class BusyHost(DiskThread):
    """A disk so slow that an event comes during each write."""

    backlog: Backlog

    async def run(self, function, *args, **kwargs):
        """Run it, while an event comes."""
        self.backlog.add([b"later"])
        return await super().run(function, *args, **kwargs)


async def test_spill_ends_although_events_come_all_the_time(tmp_path):
    own = Run("node", "boot", 1)
    disk = BusyHost()
    spool = Spool(tmp_path, 1 << 20)
    backlog = Backlog(own, 1 << 20, LossCounters, spool, PublisherStatistics(), disk)
    disk.backlog = backlog
    backlog.add([b"first"] * 3)
    async with asyncio.timeout(20):
        assert await Spilling(backlog).spill()
    assert spool.events == 3
    assert list(backlog.events) == [b"later"]
    disk.close()
    spool.close()
