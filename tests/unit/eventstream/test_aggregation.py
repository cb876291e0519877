"""Which events are equal, and what one aggregation holds."""

import pytest
from google.protobuf.duration_pb2 import Duration

from eventstream.aggregation import Aggregator, Limits, key_of, limits_of, with_number
from eventstream.errors import AggregationError
from support.feeder import exec_event
from tetragon.events_pb2 import AggregationOptions, GetEventsResponse


def connect(pid=1, time_s=1, **changes):
    event = GetEventsResponse(node_name="n1")
    event.time.FromSeconds(time_s)
    body = event.process_kprobe
    for process in (body.process, body.parent, body.ancestors.add()):
        process.binary = "/usr/bin/curl"
        process.exec_id = process.parent_exec_id = f"n1:{pid}"
        process.pid.value = process.tid.value = pid
        process.start_time.FromSeconds(time_s)
        process.refcnt = pid
    body.function_name = "tcp_connect"
    sock = body.args.add(label="sock").sock_arg
    sock.daddr, sock.dport = "10.0.0.1", 443
    sock.sport, sock.cookie = 40_000 + pid, pid
    for name, value in changes.items():
        part, _, field = name.rpartition("__")
        target = {"": event, "body": body, "process": body.process, "sock": sock}[part]
        setattr(target, field, value)
    return event


def test_runs_of_one_program_are_equal():
    assert key_of(connect(pid=1, time_s=1)) == key_of(connect(pid=2, time_s=9))


@pytest.mark.parametrize(
    "change",
    [
        {"node_name": "n2"},
        {"process__binary": "/usr/bin/wget"},
        {"process__arguments": "-k"},
        {"process__cwd": "/tmp"},
        {"process__docker": "abc"},
        {"body__function_name": "tcp_close"},
        {"body__policy_name": "p"},
        {"body__action": 3},
        {"sock__daddr": "10.0.0.2"},
        {"sock__dport": 80},
    ],
)
def test_other_differences_make_other_events(change):
    assert key_of(connect()) != key_of(connect(**change))


def test_exits_with_another_status_differ_and_their_time_does_not_count():
    def exited(time_s, status):
        event = GetEventsResponse()
        event.process_exit.time.FromSeconds(time_s)
        event.process_exit.status = status
        return key_of(event)

    assert exited(1, 0) == exited(2, 0) != exited(2, 1)


def test_first_event_stands_for_all_in_the_order_of_the_first_ones():
    held = Aggregator(Limits(window_ns=100))
    for number, (binary, at) in enumerate([("a", 10), ("b", 20), ("a", 109), ("b", 30)]):
        held.add(number, connect(pid=number, process__binary=binary), 10, at)
    assert not held.is_over(109)
    assert held.is_over(110)  # a window begins with its first event
    assert held.take() == [(0, 2), (1, 2)]
    assert not held
    assert not held.is_over(1 << 60)


def test_held_events_are_bounded():
    by_number = Aggregator(Limits(window_ns=1, events=3))
    for number in range(3):
        assert not by_number.is_full
        by_number.add(number, connect(process__binary=str(number)), 10, 1)
    assert by_number.is_full
    by_size = Aggregator(Limits(window_ns=1, size_bytes=1000))
    by_size.add(0, connect(), 1000, 1)
    assert by_size.is_full


def test_count_is_appended_and_one_changes_nothing():
    event = exec_event(1)
    assert with_number(event, 1) == event
    counted = GetEventsResponse.FromString(with_number(event, 300))
    assert counted.aggregation_info.count == 300
    counted.ClearField("aggregation_info")
    assert counted.SerializeToString() == event


@pytest.mark.parametrize("seconds", [-1, 3601])
def test_invalid_windows_are_refused(seconds):
    with pytest.raises(AggregationError, match="window_size"):
        limits_of(AggregationOptions(window_size=Duration(seconds=seconds)))


def test_limits_follow_the_options():
    assert limits_of(AggregationOptions()) is None
    assert limits_of(AggregationOptions(channel_buffer_size=5)) is None
    options = AggregationOptions(window_size=Duration(seconds=2), channel_buffer_size=7)
    assert limits_of(options) == Limits(2_000_000_000, 7)
    options.channel_buffer_size = 1 << 40
    assert limits_of(options) == Limits(2_000_000_000, 100_000)
