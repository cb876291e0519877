"""Any kind of event is trimmed to the limit of the bus; one that cannot be is None."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.delivery.trim import trim
from support.random_messages import fill
from tetragon.events_pb2 import GetEventsResponse

KINDS = [field.name for field in GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields]


def event_of(kind):
    event = GetEventsResponse(node_name="n1")
    getattr(event, kind).SetInParent()
    return event


WITHOUT_PROCESS = ("test", "rate_limit_info", "process_throttle")


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in WITHOUT_PROCESS])
def test_process_of_every_kind_is_trimmed(kind):
    event = event_of(kind)
    process = getattr(event, kind).process
    process.exec_id, process.arguments, process.binary = "id", "x" * 100_000, "/bin/sh"
    process.argv.extend([b"y" * 50] * 2000)
    process.pid.value = 7
    found = GetEventsResponse.FromString(trim(event.SerializeToString(), 20_000))
    assert found.ByteSize() <= 20_000
    kept = getattr(found, kind).process
    assert (kept.exec_id, kept.pid.value, kept.binary) == ("id", 7, "/bin/sh")
    assert kept.flags == "truncArgs"
    assert found.node_name == "n1"
    assert found.ByteSize() > 10_000  # no more than needed


def test_arguments_of_a_call_are_trimmed():
    event = event_of("process_kprobe")
    event.process_kprobe.function_name = "__x64_sys_write"
    event.process_kprobe.process.exec_id = "id"
    event.process_kprobe.args.add(int_arg=1)
    event.process_kprobe.args.add(bytes_arg=b"z" * 300_000)
    found = GetEventsResponse.FromString(trim(event.SerializeToString(), 100_000)).process_kprobe
    assert [found.args[0].int_arg, found.function_name] == [1, "__x64_sys_write"]
    assert 90_000 < len(found.args[1].bytes_arg) < 100_000
    assert found.process.flags == ""  # nothing of the process was cut


def test_many_small_parts_are_trimmed():
    event = event_of("process_exec")
    event.process_exec.process.exec_id = "id"
    for number in range(20_000):
        event.process_exec.ancestors.add(exec_id=f"ancestor-{number}")
    found = GetEventsResponse.FromString(trim(event.SerializeToString(), 50_000)).process_exec
    assert found.process.exec_id == "id"
    assert found.ancestors[0].exec_id == "ancestor-0"


@pytest.mark.parametrize("event", [b"\xff\xff", event_of("process_exec").SerializeToString()])
def test_event_that_cannot_be_trimmed_is_none(event):
    assert trim(event, 2) is None


@given(st.data(), st.integers(50, 5000))
@settings(max_examples=100, deadline=None)
def test_no_event_is_left_too_large(data, size):
    event = GetEventsResponse()
    fill(data.draw, event, 4, st.text(max_size=400))
    found = trim(event.SerializeToString(), size)
    if found is not None:
        assert len(found) <= size
        assert GetEventsResponse.FromString(found).WhichOneof("event") == event.WhichOneof("event")
