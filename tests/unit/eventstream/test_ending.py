"""Where a reader continues when the message that it wants does not come."""

import pytest

from eventstream.continuity import Continuity
from eventstream.ending import Attempts, Ending
from eventstream.history import Bounds
from tetra.v1.stream_pb2 import GapNotice


@pytest.fixture
def ending():
    return Ending(Continuity(), Attempts(alone=3, copies=5))


def gaps(ending):
    return [(gap.cause, gap.count) for gap in ending.continuity.notices.take()[1]]


def test_messages_that_aged_out_are_noted_and_skipped(ending):
    assert ending.next_position(5, [], Bounds(8, 20), 1, 0) == 8
    assert gaps(ending) == [(GapNotice.CAUSE_AGED_OUT, 3)]


def test_the_end_of_the_stream_is_waited_at(ending):
    for _ in range(10):
        assert ending.next_position(21, [], Bounds(8, 20), 1, 0) == 21
    assert gaps(ending) == []


@pytest.mark.parametrize(("replicas", "reads"), [(1, 3), (3, 5)])
def test_messages_at_the_end_that_do_not_come_are_given_up(ending, replicas, reads):
    found = [ending.next_position(19, [], Bounds(8, 20), replicas, 0) for _ in range(reads)]
    assert found == [19] * (reads - 1) + [21]
    assert gaps(ending) == [(GapNotice.CAUSE_STREAM_DAMAGED, 2)]


def test_reads_at_another_position_do_not_count(ending):
    for position in (15, 15, 16, 16):
        assert ending.next_position(position, [], Bounds(8, 20), 1, 0) == position
    assert gaps(ending) == []
