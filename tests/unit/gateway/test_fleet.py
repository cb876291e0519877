"""What the gateway knows of each node, from batches and answers alone."""

import pytest

from eventstream.batch import Batch
from gateway import fleet as fleet_module
from gateway.fleet import STALLED_AFTER_S, Fleet
from gateway.identities import GONE_AFTER_S
from support.feeder import BOOT_ID, START_NS, exec_event
from tetra.v1 import bus_pb2

OTHER_BOOT = "b0000000-0000-4000-8000-000000000002"


class Clock:
    """Time that passes when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(fleet_module, "time", clock)
    return clock


@pytest.fixture
def fleet(clock):
    return Fleet(None)


def batch_of(node, first=1, count=1, boot_id=BOOT_ID, stored_ns=7_000_000_000):
    batch = bus_pb2.EventBatch(node_name=node, boot_id=boot_id, first_sequence=first)
    batch.collector_start.FromNanoseconds(START_NS)
    batch.events.extend(exec_event(first + n, node=node) for n in range(count))
    return Batch.decode(batch.SerializeToString(), 1, stored_ns)


def answer_of(node, made, boot_id=BOOT_ID, start_ns=START_NS):
    answer = bus_pb2.ControlResponse()
    answer.node.collector_start.FromNanoseconds(start_ns)
    answer.node.node_name, answer.node.boot_id = node, boot_id
    answer.node.last_sequence = made
    return answer


def test_batch_shows_its_node_alive(fleet):
    fleet.on_batch(batch_of("b"))
    fleet.on_batch(batch_of("a", first=5, count=3))
    first, second = fleet.nodes()
    assert [first.node_name, second.node_name] == ["a", "b"]
    assert first.alive
    assert second.alive
    assert first.last_sequence == 7
    assert first.boot_id == BOOT_ID
    assert first.collector_start.ToNanoseconds() == START_NS
    assert first.last_seen.ToNanoseconds() == 7_000_000_000


def test_malformed_batch_is_no_node(fleet):
    fleet.on_batch(Batch.decode(b"", 1, 1))
    assert fleet.nodes() == []


def test_silent_node_is_not_alive(fleet, clock):
    fleet.on_batch(batch_of("a"))
    clock.now += GONE_AFTER_S - 0.1
    assert fleet.nodes()[0].alive
    clock.now += 0.2
    assert not fleet.nodes()[0].alive
    fleet._on_answer(answer_of("a", 1))
    assert fleet.nodes()[0].alive


def test_waiting_events_are_those_published_but_not_acknowledged(fleet):
    fleet.on_batch(batch_of("a", count=10))
    fleet._on_answer(answer_of("a", 25))
    assert fleet.waiting() == {"a": 15}
    fleet.on_batch(batch_of("a", first=11, count=15))
    assert fleet.waiting() == {"a": 0}


def test_events_of_an_earlier_boot_do_not_wait(fleet):
    fleet.on_batch(batch_of("a", count=10))
    fleet._on_answer(answer_of("a", 3, boot_id=OTHER_BOOT))
    assert fleet.waiting() == {"a": 0}
    assert fleet.nodes()[0].boot_id == OTHER_BOOT


@pytest.fixture
def stalled(fleet, clock):
    """Two nodes, of which one answers and stores nothing."""
    fleet.on_batch(batch_of("a"))
    fleet.on_batch(batch_of("b"))
    fleet._on_answer(answer_of("a", 9))
    clock.now += STALLED_AFTER_S + 0.1
    fleet._on_answer(answer_of("a", 9))
    return fleet


def test_running_node_that_stores_nothing_is_stalled(stalled, clock):
    assert stalled.stalled() == ["a"]
    stalled.on_batch(batch_of("a", first=2, count=8))
    assert stalled.stalled() == []


def test_silent_node_is_not_stalled(stalled, clock):
    clock.now += GONE_AFTER_S + 0.1
    assert stalled.stalled() == []


def test_stream_is_stuck_only_while_no_node_stores_anything(stalled):
    assert stalled.stream_is_stuck
    stalled.on_batch(batch_of("b", first=2))
    assert not stalled.stream_is_stuck
    assert stalled.stalled() == ["a"]


def others(fleet):
    [node] = fleet.nodes()
    return [other.boot_id for other in node.others]


def test_host_or_collector_that_starts_again_is_no_other(fleet):
    for boot_id, start_ns in ((BOOT_ID, 1), (BOOT_ID, 2), (OTHER_BOOT, 3), (OTHER_BOOT, 3)):
        fleet._on_answer(answer_of("a", 1, boot_id, start_ns))
        assert others(fleet) == []


def test_earlier_collector_that_answers_again_shares_the_name(fleet, clock):
    fleet._on_answer(answer_of("a", 1))
    fleet._on_answer(answer_of("a", 1, OTHER_BOOT))
    assert others(fleet) == []
    fleet._on_answer(answer_of("a", 1))
    assert others(fleet) == [OTHER_BOOT]
    clock.now += GONE_AFTER_S - 0.1
    fleet._on_answer(answer_of("a", 1))
    assert others(fleet) == [OTHER_BOOT]
    clock.now += 0.2
    fleet._on_answer(answer_of("a", 1))
    assert others(fleet) == []


def test_endless_identities_of_a_node_take_no_memory(fleet):
    for number in range(100):
        fleet._on_answer(answer_of("a", 1, str(number)))
    fleet._on_answer(answer_of("a", 1, "98"))
    assert len(others(fleet)) == 7
