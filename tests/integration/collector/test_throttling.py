"""Throttling of a real collector: notices, numbers and the account of the stream."""

import asyncio
import sys
from collections import Counter

import pytest

from cli.account import Book
from cli.resume import Batch
from collector.bpf import kernel
from integration.collector.test_killed_policies import DOCUMENT
from support.cgroups import cgroup
from support.collector_process import READY_S, CollectorProcess
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.waiting import eventually
from tetragon.events_pb2 import THROTTLE_START, THROTTLE_STOP

pytestmark = pytest.mark.kernel

TRUE = "/usr/bin/true"
RUNS, CALLS, FEW = 300, 2000, 20
OPENER = """\
import os, sys
for number in range(int(sys.argv[2])):
    try:
        os.open(f"{sys.argv[1]}/{number}", 0)
    except FileNotFoundError:
        pass
"""


@pytest.fixture
def groups(tmp_path):
    info = kernel.detect(tmp_path / "cache")
    with cgroup(info, "storm") as storm, cgroup(info, "quiet") as quiet:
        yield storm, quiet


async def test_withheld_events_are_announced_and_accounted_for(
    gateway, nats_server, tmp_path, groups
):
    storm, quiet = groups
    policies, opened = tmp_path / "policies", tmp_path / "opened"
    policies.mkdir()
    opened.mkdir()
    (policies / "opens.yaml").write_text(DOCUMENT.format(name="opens", prefix=opened))
    collector = CollectorProcess(
        tmp_path, tmp_path / "cache", nats_server.url,
        TETRAGON_CGROUP_RATE="10,1s", TETRA_POLICY_CGROUP_RATE="100,1s",
    )  # fmt: skip
    await collector.start()
    try:
        await collector.logged("policy loaded")
        calls = asyncio.to_thread(
            storm.run, [sys.executable, "-c", OPENER, str(opened), str(CALLS)]
        )
        others = asyncio.to_thread(quiet.run, [sys.executable, "-c", OPENER, str(opened), str(FEW)])
        opener, other = await asyncio.gather(calls, others)
        # After the opener, whose own exec would be withheld and counted beside these.
        script = f"i=0; while [ $i -lt {RUNS} ]; do {TRUE}; i=$((i+1)); done"
        shell = await asyncio.to_thread(storm.run, ["sh", "-c", script])

        async def seen():
            found = state["found"] = Seen(await gateway.read_all(last=10_000_000))
            both = {(storm.name, ""), (storm.name, "opens")}
            return found if both <= found.stopped.keys() and found.settled(both) else None

        state: dict[str, Seen] = {}
        try:
            found = await eventually(seen, READY_S, 0.3)
        except TimeoutError:
            pytest.fail(f"{vars(state['found'])}")
    finally:
        await collector.stop()
    life, policy = found.stopped[storm.name, ""], found.stopped[storm.name, "opens"]
    assert life["exec"] > RUNS / 10  # a loaded machine runs few a second
    assert life["exec"] + found.execs[shell] == RUNS
    assert policy["policy"] > CALLS / 10
    assert policy["policy"] + found.opens[opener] == CALLS
    assert found.opens[other] == FEW
    assert found.book.is_complete, found.book.gaps
    assert found.book.withheld >= life["exec"] + policy["policy"]


class Seen:
    """What the stream says."""

    def __init__(self, responses):
        self.book = Book()
        self.stopped, self.execs, self.opens = {}, Counter(), Counter()
        self.kinds = {}
        for one in responses:
            self.book.enter(Batch(one.events, one.cursor, one.losses, one.gaps))
            for event in one.events:
                self._enter(event)

    def _enter(self, event):
        if event.HasField("process_throttle"):
            body = event.process_throttle
            key = body.cgroup, body.policy_name
            before = self.kinds.get(key, THROTTLE_STOP)
            assert {before, body.type} == {THROTTLE_START, THROTTLE_STOP}  # in turns
            self.kinds[key] = body.type
            if body.type == THROTTLE_STOP:
                withheld = {kind.name: count for kind, count in body.withheld.ListFields()}
                self.stopped[key] = Counter(self.stopped.get(key, {})) + Counter(withheld)
        elif event.HasField("process_exec"):
            body = event.process_exec
            is_child = body.process.pid.value != body.parent.pid.value
            self.execs[body.parent.pid.value] += is_child
        elif event.HasField("process_kprobe"):
            self.opens[event.process_kprobe.process.pid.value] += 1

    def settled(self, keys):
        """Whether these cgroups are throttled no longer."""
        return all(self.kinds[key] == THROTTLE_STOP for key in keys)
