"""The ring's memory, laid out as the kernel does, with a writer in the kernel's place."""

from struct import pack_into

import pytest

from support.ring_producer import PAGE, SIZE, produced_ring

BUSY, DISCARDED = 1 << 31, 1 << 30


@pytest.fixture
def ring():
    """A producer and the ring that reads what it writes."""
    with produced_ring() as both:
        yield both


def test_records_are_in_order_across_the_wrap(ring):
    producer, reader = ring
    expected = []
    for n in range(3000):
        data = b"%d" % n * (n % 50 + 1)
        producer.put(data)
        expected.append(data)
        if n % 7 == 0:
            assert reader.drain() == expected
            expected = []
    assert reader.drain() == expected
    assert reader.drain() == []


def test_discarded_records_are_passed_and_a_busy_one_is_waited_for(ring):
    producer, reader = ring
    producer.put(b"one")
    producer.put(b"gone", DISCARDED)
    at = 2 * PAGE + producer.position % SIZE
    producer.put(b"slow", BUSY)
    producer.put(b"after")
    assert reader.drain() == [b"one"]
    assert reader.drain() == []
    pack_into("<I", producer.memory, at, 4)
    assert reader.drain() == [b"slow", b"after"]


def test_a_limit_leaves_the_rest(ring):
    producer, reader = ring
    for n in range(10):
        producer.put(b"%d" % n)
    assert reader.drain(4) == [b"0", b"1", b"2", b"3"]
    assert len(reader.drain()) == 6


def consumer(producer):
    return int.from_bytes(producer.memory[:8], "little")


def test_held_record_is_freed_with_the_next_ones_or_by_release(ring):
    producer, reader = ring
    for data in (b"one", b"two", b"three"):
        producer.put(data)
    assert reader.drain(hold=True) == [b"one", b"two", b"three"]
    # To the kernel the reader is behind, so a new record is not the first that it has not freed.
    assert consumer(producer) == reader.position - 16
    producer.put(b"four")
    assert reader.drain(hold=True) == [b"four"]
    assert consumer(producer) == reader.position - 16
    assert reader.drain(hold=True) == []
    assert consumer(producer) == reader.position - 16
    reader.release()
    assert consumer(producer) == reader.position == producer.position


def test_discarded_records_behind_the_held_one_stay_with_it(ring):
    producer, reader = ring
    producer.put(b"one")
    producer.put(b"gone", DISCARDED)
    assert reader.drain(hold=True) == [b"one"]
    assert consumer(producer) == 0
    assert reader.position == producer.position
