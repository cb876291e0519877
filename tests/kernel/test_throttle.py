"""Throttling in the kernel: what is withheld is counted exactly, and nothing else is missing."""

import os
import time
from collections import Counter

import pytest

from collector.bpf import kernel
from collector.throttle import Throttle, Withheld
from kernel.conftest import execs_of, exits_of, is_exit
from kernel.test_lives import TRUE
from support.cgroups import cgroup
from tetragon.events_pb2 import THROTTLE_START, THROTTLE_STOP

pytestmark = pytest.mark.kernel

STORM = 400
FORKS = 20_000


class Limited:
    """A collector with throttling, driven by the test."""

    def __init__(self, watch):
        self.watch = watch
        opened = watch.opened
        self.throttle = Throttle(
            watch.stages.throttled,
            lambda record: watch.feed([record]),
            Withheld(opened.throttle.totals),
            life=(watch.rate, opened.throttle, opened.processes),
        )

    def notices(self, group):
        """Return the reports about a cgroup, in order: others of the machine have some, too."""
        found = [e.process_throttle for e in self.watch.events if e.HasField("process_throttle")]
        return [one for one in found if one.cgroup == group.name]

    def kinds(self, group):
        """Return what was reported of a cgroup."""
        return [one.type for one in self.notices(group)]

    def found(self, pid):
        """Return the images of ``pid`` that were reported as found in /proc."""
        execs = execs_of(self.watch.events, pid)
        return [one for one in execs if "procFS" in one.process.flags]

    def look(self):
        """Read the ring, then do what is due once a second."""
        self.watch.pump()
        self.throttle.look(time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def until(self, condition, timeout_s=60):
        """Look until ``condition`` is true."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < deadline
            self.look()
            time.sleep(0.01)
        return value


@pytest.fixture
def collector(limited):
    return Limited(limited)


@pytest.fixture
def groups(headers):
    info = kernel.detect(headers)
    with cgroup(info, "storm") as storm, cgroup(info, "other") as other:
        yield storm, other


def storm_of(group, count):
    """Start a shell in the cgroup that runs a program so many times, one after the other."""
    script = f"i=0; while [ $i -lt {count} ]; do {TRUE}; i=$((i+1)); done"
    return group.running(["sh", "-c", script])


def reported(events, parent):
    """Return how many execs and exits of children of ``parent`` were reported."""
    found = Counter()
    for event in events:
        body = event.process_exit if is_exit(event) else event.process_exec
        is_child = body.parent.pid.value == parent != body.process.pid.value
        found["exit" if is_exit(event) else "exec"] += is_child
    return found


def test_a_storm_is_withheld_and_counted_and_others_are_complete(collector, groups):
    storm, other = groups
    with storm_of(storm, STORM) as shell:
        collector.until(lambda: collector.kinds(storm))
        others = []
        while shell.poll() is None or len(others) < 8:
            others.append(other.run([TRUE]))
            time.sleep(0.2)  # below the rate
            collector.look()
    events = collector.watch.until_exit(shell.pid, *others)
    for pid in others:
        assert [e.process.binary for e in execs_of(events, pid)][-1] == TRUE
        assert len(exits_of(events, pid)) == 1

    collector.until(lambda: collector.kinds(storm)[-1] == THROTTLE_STOP)
    stops = collector.kinds(storm).count(THROTTLE_STOP)  # one, unless this machine was stalled
    assert collector.kinds(storm) == [THROTTLE_START, THROTTLE_STOP] * stops
    withheld = Counter()
    for notice in collector.notices(storm):
        withheld.update(exec=notice.withheld.exec, exit=notice.withheld.exit)
    seen = reported(collector.watch.events, shell.pid)
    assert withheld + seen == {"exec": STORM, "exit": STORM}
    assert withheld["exec"] > STORM / 10  # a loaded machine runs few a second
    assert all(collector.watch.table.living(pid) is None for pid in [shell.pid, *others])
    totals = collector.throttle.withheld.totals()
    assert totals["exec"] >= withheld["exec"]
    assert totals["exit"] >= withheld["exit"]


def test_no_event_of_others_is_missing_beside_twenty_thousand(collector, groups, lives):
    storm, other = groups
    with storm.running([lives, "forks", str(FORKS)]) as forker:
        others = []
        while forker.poll() is None or len(others) < 3:
            others.append(other.run([TRUE]))
            collector.look()
            time.sleep(0.2)  # below the rate
        assert forker.poll() == 0
    events = collector.watch.until_exit(forker.pid, *others)
    for pid in others:
        assert [e.process.binary for e in execs_of(events, pid)][-1] == TRUE
        assert len(exits_of(events, pid)) == 1
    collector.until(lambda: collector.kinds(storm)[-1] == THROTTLE_STOP)
    withheld = sum(one.withheld.exit for one in collector.notices(storm))
    assert withheld + reported(collector.watch.events, forker.pid)["exit"] == FORKS
    assert withheld > FORKS * 0.9
    lost = (collector.watch.opened.lost.lookup(slot.to_bytes(4, "little")) for slot in range(5))
    assert not any(map(any, lost))


def test_a_process_that_stays_is_reported_while_others_are_withheld(collector, groups):
    storm, _ = groups
    with storm_of(storm, 10 * STORM):
        collector.until(lambda: collector.kinds(storm))
        with storm.running(["sleep", "600"]) as stays:
            (found,) = collector.until(lambda: collector.found(stays.pid))
            assert THROTTLE_STOP not in collector.kinds(storm)
            assert found.process.binary.endswith("sleep")
            assert found.process.arguments == "600"
    (end,) = collector.until(lambda: exits_of(collector.watch.events, stays.pid))
    assert end.process.exec_id == found.process.exec_id
    assert end.signal == "SIGKILL"
    assert collector.watch.table.living(stays.pid) is None


def test_a_reported_process_that_execs_unseen_has_its_exit(collector, groups, tmp_path):
    storm, _ = groups
    go = tmp_path / "go"
    os.mkfifo(go)
    script = f"read line < {go}; exec {TRUE}"
    with storm.running(["sh", "-c", script]) as one:
        collector.until(lambda: execs_of(collector.watch.events, one.pid))
        with storm_of(storm, 10 * STORM):
            collector.until(lambda: collector.kinds(storm))
            go.write_text("go\n")
            assert one.wait(60) == 0
    (end,) = collector.until(lambda: exits_of(collector.watch.events, one.pid))
    last = execs_of(collector.watch.events, one.pid)[-1]
    assert end.process.exec_id == last.process.exec_id
    assert last.process.binary.endswith("sh")
    assert collector.watch.table.living(one.pid) is None
