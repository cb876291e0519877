"""The window of the newest batches: its bounds, its order, and who is woken."""

import asyncio

import pytest

from gateway.broadcaster import WARM_BATCHES, Behind, Broadcaster
from unit.gateway.batches import batch


def filled(count, max_bytes=1 << 20):
    broadcaster = Broadcaster(max_bytes)
    for number in range(1, count + 1):
        broadcaster.publish(batch(number, number * 10))
    return broadcaster


def test_batches_are_found_by_their_number():
    broadcaster = filled(3)
    assert [broadcaster.get(n).stream_sequence for n in (1, 2, 3)] == [1, 2, 3]
    assert broadcaster.get(4) is None
    assert broadcaster.head == 3


def test_window_is_bounded_by_bytes_and_drops_the_oldest():
    size = batch(1, 10).size_bytes
    broadcaster = filled(10, max_bytes=4 * size + size // 2)
    statistics = broadcaster.statistics()
    assert statistics.batches == 4
    assert statistics.size_bytes <= 4 * size + size // 2
    assert statistics.events_total == 100
    with pytest.raises(Behind):
        broadcaster.get(6)
    assert broadcaster.get(7) is not None


def test_batch_larger_than_the_window_is_kept_while_it_is_the_newest():
    broadcaster = filled(2, max_bytes=1)
    assert broadcaster.statistics().batches == 1
    assert broadcaster.get(2) is not None


def test_message_that_nats_skipped_is_behind():
    broadcaster = filled(2)
    broadcaster.publish(batch(5, 50))
    with pytest.raises(Behind):
        broadcaster.get(4)


def test_only_the_newest_batches_keep_what_was_parsed():
    broadcaster = filled(WARM_BATCHES + 3)
    warm = [n for n in range(1, WARM_BATCHES + 4) if broadcaster.get(n).warm]
    assert warm == list(range(4, WARM_BATCHES + 4))
    newest, oldest = broadcaster.get(WARM_BATCHES + 3), broadcaster.get(1)
    assert newest.events() is newest.events()
    assert oldest.events() is not oldest.events()
    assert oldest.spliced() == oldest.spliced()


def test_time_of_the_message_before_is_known_while_it_is_in_the_window():
    broadcaster = filled(2)
    assert broadcaster.stored_ns_before(3) == broadcaster.get(2).stored_ns
    assert broadcaster.stored_ns_before(1) == 0


def test_restart_empties_the_window():
    broadcaster = filled(3)
    broadcaster.restart(100, lost_end=(101, 103))
    assert (broadcaster.head, broadcaster.generation) == (100, 1)
    assert broadcaster.lost_end == (101, 103)
    assert broadcaster.statistics()[:2] == (0, 0)
    with pytest.raises(Behind):
        broadcaster.get(3)
    broadcaster.publish(batch(101, 10))
    assert broadcaster.get(101) is not None


async def test_waiting_ends_with_the_awaited_batch():
    broadcaster = filled(1)
    waiting = [asyncio.create_task(broadcaster.wait_beyond(n)) for n in (1, 1, 2)]
    await asyncio.sleep(0)
    broadcaster.publish(batch(2, 20))
    await asyncio.wait(waiting[:2], timeout=5)
    assert [task.done() for task in waiting] == [True, True, False]
    broadcaster.publish(batch(3, 30))
    await asyncio.wait_for(waiting[2], 5)


async def test_waiting_ends_with_a_restart():
    broadcaster = filled(3)
    waiting = asyncio.create_task(broadcaster.wait_beyond(3))
    await asyncio.sleep(0)
    broadcaster.restart(0)
    await asyncio.wait_for(waiting, 5)
