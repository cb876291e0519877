"""Totals of losses: from the kernel's slots, from this collector and from the one before it."""

import struct

from collector.losses import Losses
from collector.sensors.base import Sensor
from support.stages import NothingLost
from tetra.v1.node_pb2 import LossCounters

SENSORS = (
    Sensor("one", (), losses={"exec": (0, 2), "fork": (1,)}),
    Sensor("two", (), losses={"calls": (5,)}),
)


class Slots:
    """The kernel's counters: a list for each slot, one number per CPU."""

    def __init__(self, **_):
        self.slots = {}

    def lookup(self, key):
        counters = self.slots.get(struct.unpack("<I", key)[0])
        return None if counters is None else struct.pack(f"<{len(counters)}Q", *counters)


def totals(losses):
    losses.refresh()
    return dict(losses.counters().by_cause)


def made(lost=None, counts=None, noted=None, **options):
    noted = (lambda _: None) if noted is None else noted.append
    return Losses(lost or Slots(), SENSORS, counts or {}, noted, **options)


def test_slots_of_a_cause_are_added_over_all_cpus():
    lost = Slots()
    losses = made(lost)
    assert totals(losses) == {}
    lost.slots = {0: [1, 2, 3, 4], 1: [0, 7], 2: [100], 3: [9], 5: [1 << 40]}
    assert totals(losses) == {"exec": 110, "fork": 7, "calls": 1 << 40}


def test_own_counts_and_attached_counts_are_added():
    more = {}
    losses = made(counts={"spool": lambda: 3, "quiet": lambda: 0}, more=lambda: more)
    assert totals(losses) == {"spool": 3}
    more["policy a"] = 2
    assert totals(losses) == {"spool": 3, "policy a": 2}
    more.clear()
    assert totals(losses) == {"spool": 3}


def test_totals_change_only_when_they_are_read():
    count = [1]
    losses = made(counts={"spool": lambda: count[0]})
    assert losses.counters() == LossCounters()
    losses.refresh()
    count[0] = 2
    assert dict(losses.counters().by_cause) == {"spool": 1}


def test_continued_totals_count_for_what_the_kernel_does_not_keep():
    lost = Slots()
    lost.slots = {0: [10]}
    before = LossCounters(by_cause={"exec": 10, "spool": 5, "gone": 2, "policy a": 4})
    losses = made(
        lost,
        counts={"spool": lambda: 1},
        continued=before,
        more=lambda: {"policy a": 3, "policy b": 6},
    )
    # The kernel's map outlived the collector: its 10 are not counted twice.
    assert totals(losses) == {"exec": 10, "spool": 6, "gone": 2, "policy a": 7, "policy b": 6}


def test_new_totals_are_noted_and_logged_once(capsys):
    count, noted = [0], []
    losses = made(counts={"spool": lambda: count[0]}, noted=noted)
    losses.refresh()
    assert noted == []
    count[0] = 4
    losses.refresh()
    losses.refresh()
    assert [dict(one.by_cause) for one in noted] == [{"spool": 4}]
    logged = capsys.readouterr().out
    assert logged.count("events lost") == 1
    assert "spool" in logged


def test_continued_totals_are_not_noted_again():
    noted = []
    losses = made(continued=LossCounters(by_cause={"spool": 5}), noted=noted)
    losses.refresh()
    assert noted == []
    assert dict(losses.counters().by_cause) == {"spool": 5}


def test_stand_in_of_other_tests_has_lost_nothing():
    assert totals(made(NothingLost())) == {}


def test_withheld_events_are_totals_of_their_own():
    withheld = {"exec": 2}
    noted = []
    losses = made(noted=noted, withheld=lambda: withheld)
    assert losses.refresh()
    assert not losses.refresh()
    withheld["policy:p"] = 1
    assert losses.refresh()
    assert dict(losses.counters().withheld) == {"exec": 2, "policy:p": 1}
    assert not losses.counters().by_cause
    assert len(noted) == 2


def test_policies_continue_to_count_what_they_withheld_before_a_restart():
    before = LossCounters(withheld={"exec": 9, "policy:p": 4})
    losses = made(continued=before, withheld=lambda: {"exec": 10, "policy:p": 1})
    losses.refresh()
    assert dict(losses.counters().withheld) == {"exec": 10, "policy:p": 5}
