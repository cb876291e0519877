"""A new kind of event is an addition: this module adds one, from the record to the client.

The kind is made up: a process raised an alarm. All that it needs is here, in the order in which
data passes: record, decode, handle, event, and its forms in the outputs. docs/extending.md explains
each part with this module as the example.
"""

import asyncio
import sys
from struct import Struct
from struct import error as StructError
from types import ModuleType
from typing import NamedTuple

import pytest

from cli.renderers import kinds
from cli.renderers.compact import CompactRenderer
from cli.renderers.json import JsonRenderer
from cli.renderers.kinds.base import Kind, Line
from cli.renderers.lifecycle import LifecycleRenderer
from cli.renderers.pen import CompactOptions
from collector.delivery.publisher import Publisher
from collector.delivery.segments import Run
from collector.delivery.spool import Spool
from collector.errors import DecodeError
from collector.events.encoder import event_tag
from collector.metadata.enricher import Enricher
from collector.sensors import registry
from collector.sensors.base import RecordKind, Sensor
from support.stages import Stages
from tetra.v1.node_pb2 import LossCounters
from tetragon import tetragon_pb2
from unit.collector.synthetic import HOST_NS, exec_record, exit_record

# --- record: what the kernel side would write ------------------------------------------------

ALARM = 4711
_LAYOUT = Struct("<IIQI4x")  # kind, level, ktime_ns, pid


class AlarmRecord(NamedTuple):
    """A process raised an alarm."""

    kind: int
    level: int
    ktime_ns: int  # boot clock
    pid: int


def decode(data):
    """Return the record in ``data``; raise `DecodeError` if it is cut short."""
    try:
        return AlarmRecord._make(_LAYOUT.unpack_from(data))
    except StructError as error:
        raise DecodeError("alarm record", len(data)) from error


# --- handler and event: the sensor -----------------------------------------------------------


class AlarmSensor:
    """Makes an event of each alarm of a process in the table."""

    def __init__(self, parts):
        self.table = parts.table
        self.encoder = parts.encoder

    def sensor(self):
        kind = RecordKind(ALARM, "alarm", decode, self.handle, event="TEST", operation="99")
        return Sensor("alarm", (kind,), losses={"kernel_alarm": (7,)})

    def handle(self, record, moment):
        process = self.table.living(record.pid)
        if process is None:
            return None
        body = tetragon_pb2.Test(arg0=record.level, arg1=process.pid).SerializeToString()
        return self.encoder.response(event_tag("test"), body, record.ktime_ns + moment.offset_ns)


# --- outputs: one function each; JSON follows from the message --------------------------------


def lifecycle(event):
    """Return ``🔔 alarm pid 5: level 3``."""
    return Line("🔔", "alarm", detail=f"pid {event.test.arg1}: level {event.test.arg0}")


def compact(event, pen):
    """Return ``🔔 alarm NODE level 3``."""
    return f"{pen.label('🔔', 'alarm')} {event.node_name} level {event.test.arg0}\n"


@pytest.fixture
def alarms(monkeypatch):
    """Register the kind with the collector and with the client."""
    monkeypatch.setattr(
        registry, "SENSORS", (*registry.SENSORS, lambda parts: AlarmSensor(parts).sensor())
    )
    module = ModuleType("alarm_kind")
    module.KIND = Kind(lifecycle, compact)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(kinds.MODULES, "test", module.__name__)
    kinds.kind_of.cache_clear()
    yield
    kinds.kind_of.cache_clear()


async def test_new_kind_arrives_in_a_client(alarms, gateway, nc, tmp_path):
    stages = Stages(Enricher(HOST_NS), "n1")
    own = Run("n1", "boot", 1)
    publisher = Publisher(own, 1 << 20, LossCounters, Spool(tmp_path, 0))
    connected = asyncio.get_running_loop().create_future()
    connected.set_result(nc)
    task = asyncio.create_task(publisher.run(connected))
    call = await gateway.stream()
    records = [
        exec_record(5, 10),
        _LAYOUT.pack(ALARM, 3, 20, 5),
        _LAYOUT.pack(ALARM, 4, 21, 6),  # no such process
        _LAYOUT.pack(ALARM, 5, 22, 5)[:9],
        exit_record(5, 10, 30),
    ]
    publisher.publish(stages.handle(records, 0))

    events = []
    async with asyncio.timeout(30):
        while len(events) < 3:
            events += (await call.read()).events
    task.cancel()
    assert [e.WhichOneof("event") for e in events] == ["process_exec", "test", "process_exit"]
    alarm = events[1]
    assert (alarm.node_name, alarm.time.ToNanoseconds()) == ("n1", 20)
    line = LifecycleRenderer().render([alarm])
    assert "🔔 alarm" in line
    assert "pid 5: level 3" in line
    assert CompactRenderer(CompactOptions()).render([alarm]) == "🔔 alarm   n1 level 3\n"
    assert '"test":{"arg0":"3","arg1":"5"}' in JsonRenderer().render([alarm])
    assert stages.counts()["alarm"] == 2
    assert stages.pipeline.statistics.malformed == 1


def test_two_sensors_cannot_have_one_kind(alarms, monkeypatch):
    twice = (*registry.SENSORS, registry.SENSORS[-1])
    monkeypatch.setattr(registry, "SENSORS", twice)
    with pytest.raises(ValueError, match="record kind 4711: taken"):
        Stages(Enricher(HOST_NS))
