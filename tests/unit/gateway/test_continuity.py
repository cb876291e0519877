"""What is missing between two batches of a node, and what came twice."""

import pytest

from eventstream.continuity import Continuity
from eventstream.notices import Window
from tetra.v1 import stream_pb2
from unit.gateway.batches import SECOND_NS, START_NS, batch

Gap = stream_pb2.GapNotice


def follow(*batches):
    """Return the duplicates of each batch, the losses and the gaps."""
    continuity = Continuity()
    duplicates = [continuity.check(one) for one in batches]
    losses, gaps = continuity.notices.take()
    return duplicates, losses, gaps


def at_second(number):
    return START_NS + number * SECOND_NS


def span(gap):
    return getattr(gap, "from").ToNanoseconds(), gap.to.ToNanoseconds()


def test_numbers_that_join_are_complete():
    assert follow(batch(1, 1), batch(2, 11), batch(3, 21)) == ([0, 0, 0], [], [])


def test_stream_may_begin_at_any_number():
    assert follow(batch(9, 1000)) == ([0], [], [])


def test_nodes_are_followed_apart():
    batches = [batch(1, 1, node="a"), batch(2, 500, node="b"), batch(3, 11, node="a")]
    assert follow(*batches) == ([0, 0, 0], [], [])


def test_hole_has_numbers_node_and_the_times_around_it():
    _, losses, [gap] = follow(batch(1, 1), batch(2, 18))
    assert losses == []
    assert (gap.cause, gap.node_name) == (Gap.CAUSE_MISSING_SEQUENCE, "n")
    assert (gap.first, gap.last, gap.count) == (11, 17, 7)
    assert span(gap) == (at_second(10), at_second(18))


def test_one_missing_event_is_a_hole():
    _, _, [gap] = follow(batch(1, 1), batch(2, 11), batch(3, 22))
    assert (gap.first, gap.last, gap.count) == (21, 21, 1)
    assert span(gap) == (at_second(20), at_second(22))


def test_gap_of_missing_messages_is_damage():
    continuity = Continuity()
    continuity.check(batch(1, 1))
    continuity.note_damage(2, 2, at_second(11), at_second(41))
    continuity.check(batch(3, 21))
    _, (of_stream, of_node) = continuity.notices.take()
    assert (of_stream.cause, of_stream.first, of_stream.last) == (Gap.CAUSE_STREAM_DAMAGED, 2, 2)
    assert (of_node.cause, of_node.first, of_node.last) == (Gap.CAUSE_STREAM_DAMAGED, 11, 20)


def test_damage_elsewhere_does_not_explain_a_hole():
    continuity = Continuity()
    continuity.note_damage(1, 1, 0, 0)
    continuity.check(batch(2, 1))
    continuity.check(batch(3, 21))
    assert continuity.notices.take()[1][-1].cause == Gap.CAUSE_MISSING_SEQUENCE


@pytest.mark.parametrize(
    ("again", "duplicates"),
    [(batch(3, 11), 10), (batch(3, 16), 5), (batch(3, 1), 10), (batch(3, 5, 3), 3)],
    ids=["the last batch", "half of it", "the first batch", "a part of the first"],
)
def test_duplicates_are_counted_from_the_front(again, duplicates):
    assert follow(batch(1, 1), batch(2, 11), again) == ([0, 0, duplicates], [], [])


def test_batch_that_fills_a_hole_late_is_not_a_duplicate():
    late = batch(3, 11)
    duplicates, _, gaps = follow(batch(1, 1), batch(2, 21), late, late)
    assert duplicates == [0, 0, 0, 10]
    assert len(gaps) == 1


def test_hole_is_filled_piece_by_piece():
    parts = [batch(3, 11, 4), batch(4, 18, 3), batch(5, 15, 3), batch(6, 15, 3)]
    assert follow(batch(1, 1), batch(2, 21), *parts)[0] == [0, 0, 0, 0, 0, 3]


def test_batch_from_before_the_beginning_is_not_a_duplicate():
    assert follow(batch(5, 101), batch(6, 1))[0] == [0, 0]


def test_overlap_counts_its_events_and_moves_the_end():
    batches = [batch(1, 1), batch(2, 10), batch(3, 1), batch(4, 20), batch(5, 15, 5)]
    assert follow(*batches) == ([0, 1, 10, 0, 5], [], [])


def test_batch_that_reaches_beyond_a_hole_is_a_duplicate():
    assert follow(batch(1, 1), batch(2, 21), batch(3, 15))[0] == [0, 0, 10]


def test_damage_that_lasts_longer_does_not_explain_a_hole():
    continuity = Continuity()
    continuity.check(batch(1, 1))
    continuity.note_damage(2, 9, at_second(11), at_second(41))
    continuity.check(batch(3, 21))
    assert continuity.notices.take()[1][-1].cause == Gap.CAUSE_MISSING_SEQUENCE


def test_damage_before_the_last_batch_does_not_explain_a_hole():
    """The hole is behind message 3, and the damage before it."""
    continuity = Continuity()
    continuity.check(batch(1, 1))
    continuity.note_damage(2, 2, 0, 0)
    continuity.check(batch(3, 11))
    continuity.check(batch(5, 31))
    assert continuity.notices.take()[1][-1].cause == Gap.CAUSE_MISSING_SEQUENCE


def test_gap_of_a_killed_collector_begins_when_the_probes_of_the_next_one_started():
    """The next collector first publishes what the killed one left, later than its own start."""
    later = batch(2, 11, probes_start_ns=at_second(4))
    _, _, [gap] = follow(batch(1, 1), later)
    assert span(gap) == (at_second(4), at_second(4))


def test_gap_behind_an_event_without_a_time_begins_when_its_batch_was_stored():
    timeless = batch(2, 11)
    timeless.payloads[-1] = b""
    _, _, [gap] = follow(batch(1, 1), timeless, batch(3, 31))
    assert span(gap) == (timeless.stored_ns, at_second(31))


def test_oldest_of_many_gaps_is_forgotten():
    batches = [batch(n, n * 20 + 1) for n in range(67)]  # 66 gaps of 10 events
    oldest, newest = batch(67, 11), batch(68, 65 * 20 + 11)
    duplicates, _, gaps = follow(*batches, oldest, newest)
    assert len(gaps) == 66
    assert duplicates[-2:] == [10, 0]


def test_least_recently_used_series_is_forgotten(monkeypatch):
    monkeypatch.setattr("eventstream.continuity._MAX_SERIES", 3)
    continuity = Continuity()
    nodes = ["busy", "idle", "busy", "a", "busy", "b", "busy"]  # the fourth node is one too many
    firsts = dict.fromkeys(nodes, 1)
    for number, node in enumerate(nodes, 1):
        assert continuity.check(batch(number, firsts[node], node=node)) == 0
        firsts[node] += 10
    assert continuity.check(batch(8, 1, node="busy")) == 10  # remembered: duplicates
    assert continuity.check(batch(9, 1, node="idle")) == 0  # forgotten: it begins again
    assert not continuity.notices


def test_next_collector_is_one_gap():
    later = [batch(n, 10 * n - 9, probes_start_ns=at_second(12)) for n in (2, 3)]
    _, _, [gap] = follow(batch(1, 1), *later)
    assert gap.cause == Gap.CAUSE_COLLECTOR_DOWN


def test_losses_are_the_difference_of_the_counters():
    first, second = batch(1, 1, lost={"ring": 3}), batch(2, 11, lost={"ring": 5, "spool": 1})
    _, [loss], gaps = follow(first, second, batch(3, 21, lost={"ring": 5, "spool": 1}))
    assert gaps == []
    assert (loss.node_name, loss.boot_id) == ("n", "boot")
    assert dict(loss.lost.by_cause) == {"ring": 2, "spool": 1}
    assert loss.time.ToNanoseconds() == at_second(20)


def test_batch_without_events_reports_losses_alone():
    """It has the number that the next event will have."""
    alone = batch(2, 11, 0, lost={"ring": 5})
    duplicates, [loss], gaps = follow(batch(1, 1, lost={"ring": 3}), alone, batch(3, 11))
    assert (duplicates, gaps) == ([0, 0, 0], [])
    assert dict(loss.lost.by_cause) == {"ring": 2}
    assert loss.time.ToNanoseconds() == alone.stored_ns


def test_events_missing_before_a_batch_without_events_are_a_gap():
    alone = batch(2, 16, 0)
    _, _, [gap] = follow(batch(1, 1), alone, batch(3, 16))
    assert (gap.first, gap.last, gap.count) == (11, 15, 5)
    assert span(gap) == (at_second(10), alone.stored_ns)


def test_late_batch_without_events_changes_nothing():
    batches = [batch(1, 1), batch(2, 21), batch(3, 15, 0), batch(4, 11), batch(5, 31)]
    duplicates, losses, gaps = follow(*batches)
    assert (duplicates, losses, len(gaps)) == ([0, 0, 0, 0, 0], [], 1)


def test_collector_that_was_down_is_a_gap_until_its_probes_start():
    later = batch(2, 11, probes_start_ns=at_second(12), lost={"ring": 1})
    _, [loss], [gap] = follow(batch(1, 1, lost={"ring": 9}), later)
    assert gap.cause == Gap.CAUSE_COLLECTOR_DOWN
    assert span(gap) == (at_second(10), at_second(12))
    assert dict(loss.lost.by_cause) == {"ring": 1}  # its counters began at 0


def test_another_boot_is_a_gap_and_new_numbers():
    duplicates, _, [gap] = follow(
        batch(1, 1), batch(2, 1, boot="next", probes_start_ns=at_second(50))
    )
    assert duplicates == [0, 0]
    assert gap.cause == Gap.CAUSE_COLLECTOR_DOWN


def test_malformed_events_are_named_by_number():
    damaged = batch(1, 5, 3)
    damaged.malformed = [6, 7]
    _, _, [gap] = follow(damaged)
    assert (gap.cause, gap.count, gap.first, gap.last) == (Gap.CAUSE_MALFORMED, 2, 6, 7)


def test_malformed_message_is_named_by_its_place_in_the_stream():
    nameless = batch(4, 0, 0, node="")
    _, _, [gap] = follow(nameless)
    assert (gap.cause, gap.node_name, gap.first, gap.last) == (Gap.CAUSE_MALFORMED, "", 4, 4)


def test_notices_are_returned_once():
    continuity = Continuity()
    continuity.check(batch(1, 1))
    continuity.check(batch(2, 21))
    assert bool(continuity.notices)
    assert len(continuity.notices.take()[1]) == 1
    assert continuity.notices.take() == ([], [])
    assert not continuity.notices


# The gap is between second 10 and second 21.
@pytest.mark.parametrize(
    ("since", "until", "inside"),
    [(1, None, True), (15, None, True), (21, None, True), (22, None, False), (1, 9, False),
     (1, 10, True), (11, 12, True), (30, 40, False)],
)  # fmt: skip
def test_window_cuts_notices(since, until, inside):
    continuity = Continuity()
    continuity.check(batch(1, 1))
    continuity.check(batch(2, 21, lost={"ring": 1}))
    window = Window(at_second(since), None if until is None else at_second(until))
    losses, gaps = continuity.notices.take(window)
    assert bool(gaps) is inside
    # The loss is between second 10 and second 30, the last event of the batch.
    assert bool(losses) is (since <= 30 and (until is None or until >= 10))


def test_withheld_events_are_noticed_by_their_increase_and_are_no_loss():
    batches = [
        batch(1, 1),
        batch(2, 11, withheld={"exec": 3}),
        batch(3, 21, withheld={"exec": 3}),
        batch(4, 31, withheld={"exec": 5, "policy:p": 1}),
    ]
    _, losses, gaps = follow(*batches)
    assert gaps == []
    assert [dict(one.lost.withheld) for one in losses] == [{"exec": 3}, {"exec": 2, "policy:p": 1}]
    assert not any(one.lost.by_cause for one in losses)


def test_two_boots_at_once_share_a_name():
    other = {"boot": "other", "probes_start_ns": at_second(5)}
    duplicates, _, [down, shared] = follow(
        batch(1, 1, 3), batch(2, 6, 3, **other), batch(3, 4, 6), batch(4, 9, 3, **other)
    )
    assert duplicates == [0, 0, 0, 0]
    assert down.cause == Gap.CAUSE_COLLECTOR_DOWN
    assert (shared.cause, shared.node_name, shared.count) == (Gap.CAUSE_NAME_SHARED, "n", 0)
    assert span(shared) == (at_second(5), at_second(9))
    assert span(down)[1] == span(shared)[0]


def test_late_events_of_an_earlier_boot_share_no_name():
    """A collector publishes what its host kept from before it was started again."""
    later = batch(2, 1, boot="other", probes_start_ns=at_second(60))
    _, _, gaps = follow(batch(1, 1), later, batch(3, 11))
    assert [gap.cause for gap in gaps] == [Gap.CAUSE_COLLECTOR_DOWN]
