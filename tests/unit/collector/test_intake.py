"""Intake: records are published in their order; held ones when they are ready, or at the stop."""

import asyncio
from contextlib import asynccontextmanager, suppress
from struct import pack, unpack

import pytest

from collector.delivery.publisher import Publisher
from collector.delivery.segments import Run
from collector.delivery.spool import Spool
from collector.intake import Intake
from collector.pipeline import Pipeline
from collector.sensors.base import RecordKind, Sensor
from support.waiting import eventually
from tetra.v1.node_pb2 import LossCounters

KIND, OFFSET_NS = 200, 7_000


class Numbers:
    """A sensor whose records are numbers; those in ``waiting`` lack their metadata."""

    def __init__(self):
        self.waiting = set()
        kind = RecordKind(KIND, "number", self.decode, self.handle, ready=self.ready)
        self.sensor = Sensor("numbers", (kind,))

    def decode(self, data):
        return unpack("<II", data)[1]

    def ready(self, number):
        return number not in self.waiting

    def handle(self, number, moment):
        return f"{number} {moment.offset_ns}".encode() if number else None


def records(*numbers):
    return [pack("<II", KIND, number) for number in numbers]


@pytest.fixture
def numbers():
    return Numbers()


@pytest.fixture
def intake(numbers, tmp_path):
    """An intake whose publisher has no connection: events stay in its memory."""
    own = Run("n", "boot", 1)
    publisher = Publisher(own, 1 << 20, LossCounters, Spool(tmp_path, 0, "never"))
    return Intake(Pipeline([numbers.sensor]), publisher)


def published(intake):
    """Return the numbers of the events in the publisher; all have the offset of their reading."""
    found = [event.decode().split() for event in intake.publisher.held()]
    assert {offset for _, offset in found} <= {str(OFFSET_NS)}
    return [int(number) for number, _ in found]


@asynccontextmanager
async def running(intake):
    task = asyncio.create_task(intake.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_events_are_published_in_the_order_of_their_records(intake):
    intake.handle(records(1, 2, 0, 3), OFFSET_NS)  # 0 is no event
    intake.handle(records(4), OFFSET_NS)
    assert published(intake) == [1, 2, 3, 4]
    assert intake.publisher.statistics.made == 4


async def test_few_events_wait_for_the_rest_of_a_look(intake):
    wake = intake.publisher._wake
    intake.handle(records(1, 2), OFFSET_NS, True)
    assert not wake.is_set()
    intake.handle([], OFFSET_NS, False)  # no record followed
    assert wake.is_set()


async def test_held_records_are_published_when_their_metadata_arrives(intake, numbers):
    numbers.waiting = {2, 4}
    async with running(intake):
        intake.handle(records(1, 2, 3), OFFSET_NS)
        intake.handle(records(4, 5), OFFSET_NS)
        assert published(intake) == [1]
        numbers.waiting.remove(2)
        await eventually(lambda: published(intake) == [1, 2, 3])
        numbers.waiting.remove(4)
        await eventually(lambda: published(intake) == [1, 2, 3, 4, 5])
        # The next wait begins with the next record that is held.
        numbers.waiting = {6}
        intake.handle(records(6, 7), OFFSET_NS)
        await eventually(lambda: published(intake) == [1, 2, 3, 4, 5, 6, 7])  # after its limit


async def test_held_records_are_published_at_the_stop(intake, numbers):
    numbers.waiting = {1, 3}
    intake.handle(records(1, 2, 3), OFFSET_NS)
    assert published(intake) == []
    intake.finish()
    assert published(intake) == [1, 2, 3]
    assert intake.pipeline.holds == 0
