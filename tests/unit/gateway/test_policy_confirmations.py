"""Which status of a node is the answer to a write, and which status of two is the newer."""

import pytest

from bus.policies import Key
from gateway.policies.confirm import Report, Write
from gateway.policies.nodes import PolicyNodes
from tetra.v1.bus_pb2 import ControlResponse
from tetra.v1.node_pb2 import NodeInfo
from tetra.v1.policies_pb2 import NodePolicies, NodePolicy
from tetragon.sensors_pb2 import TP_STATE_LOADING

KEY = Key("one")
WRITE = Write(KEY, "a1", 7)


def status(change="a1", **fields):
    return NodePolicy(change=change, **fields)


@pytest.mark.parametrize(
    ("change", "answers"),
    [("a1", True), ("a1.9", True), ("a1+", False), ("a1-", False), ("a0", False), ("", False)],
)
def test_a_status_answers_the_write_that_it_names(change, answers):
    report = Report(status(change, revision=1, prepared=2, error="no such function"), applied=99)
    assert report.answers(WRITE) is answers
    assert report.is_on(WRITE, 1) is answers
    assert report.has_loaded(WRITE, 2) is answers
    assert bool(report.failure(WRITE)) is answers


@pytest.mark.parametrize(
    ("found", "applied", "without"),
    [
        (None, 7, True),
        (None, 6, False),  # it has not read the deletion
        (status("a0", revision=1), 8, False),
        (status("a0", prepared=1), 8, False),
        (status("a0", state=TP_STATE_LOADING), 8, False),
        (status("a0", error="no such function"), 8, True),
        (status("a0", error="no such function"), 6, False),
    ],
)
def test_a_node_is_without_a_policy_when_it_has_carried_out_the_deletion(found, applied, without):
    assert Report(found, applied).is_without(WRITE) is without


def test_an_older_collector_is_judged_by_revisions():
    report = Report(status("", revision=1, error="x"), applied=None)
    assert report.is_on(WRITE, 1)
    assert not report.is_on(WRITE, 2)
    assert report.failure(WRITE) == "x"
    assert Report(None, None).is_without(WRITE)


class Collectors:
    """Answers for the collector of node n1 that runs now."""

    def __init__(self):
        self.now = NodePolicies()
        self.asked = 0

    async def describe(self):
        return self.nodes()

    def nodes(self):
        info = NodeInfo(node_name="n1", boot_id="boot", alive=True)
        info.policies.version = self.now.version
        info.policies.start.CopyFrom(self.now.collector_start)
        return [info]

    async def ask_nodes(self, request, names):
        self.asked += 1
        answer = ControlResponse(policy_status=self.now)
        answer.node.node_name = "n1"
        return [answer]


def published(start, version, revision):
    found = NodePolicies(node_name="n1", boot_id="boot", version=version)
    found.collector_start.FromSeconds(start)
    one = found.policies.add(status=NodePolicy(revision=revision))
    one.policy.name, one.policy.domain = KEY.name, KEY.domain
    return found


async def test_status_of_a_collector_that_was_restarted_replaces_that_of_the_one_before():
    collectors = Collectors()
    nodes = PolicyNodes(None, collectors)
    collectors.now = published(start=100, version=50, revision=3)
    await nodes.refresh()
    assert nodes.status("n1", KEY).revision == 3
    collectors.now = published(start=200, version=2, revision=4)  # its message was lost
    await nodes.refresh()
    assert nodes.status("n1", KEY).revision == 4
    collectors.now = published(start=150, version=1, revision=5)  # the clock was set back
    await nodes.refresh()
    assert nodes.status("n1", KEY).revision == 5
    await nodes.refresh()
    assert collectors.asked == 3


async def test_late_message_of_a_collector_that_ended_changes_nothing():
    collectors = Collectors()
    nodes = PolicyNodes(None, collectors)
    collectors.now = published(start=200, version=2, revision=4)
    await nodes.refresh()
    nodes._take("n1", published(start=100, version=51, revision=3))
    assert nodes.status("n1", KEY).revision == 4
    nodes._take("n1", published(start=200, version=1, revision=1))
    assert nodes.status("n1", KEY).revision == 4
