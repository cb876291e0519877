"""What a node reported of an earlier change is never taken for its answer to a later one.

The status of one node is delayed, so that what the gateway knows of it is old for as long as the
test wants. Real gateway and NATS; nodes without a kernel.
"""

import asyncio

import pytest

from bus.policies import Key
from support.fleet import by_node, document
from support.waiting import eventually
from tetra.v1 import policies_pb2 as pb
from tetragon.sensors_pb2 import TP_STATE_ENABLED, TP_STATE_LOADING

KEY = Key("one")
REF = pb.PolicyRef(name="one")
OLD = {"grpc:one": ("fd_install", "enforce")}
NEW = {"grpc:one": ("vfs_read", "enforce")}
LONG_S = 30
UNANSWERED_S = 0.5


@pytest.fixture
async def nodes(start_nodes):
    return await start_nodes("n1", "n2", "n3")


@pytest.fixture
def reported(gateway):
    """What the gateway knows of a node."""
    return lambda name: gateway.gateway.policies.nodes.status(name, KEY)


def add(policies, call="fd_install", **options):
    return policies.AddPolicy(pb.AddPolicyRequest(yaml=document(call=call), **options))


async def assert_unanswered(call):
    """Assert that a call waits; a shorter look would pass, too, never fail."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(call), UNANSWERED_S)


async def test_failure_of_an_earlier_promotion_does_not_fail_the_next(nodes, policies, reported):
    await add(policies)
    await add(policies, "vfs_read", replace=True, canary=pb.Canary(percent=5))
    (listed,) = (await policies.ListPolicies(pb.ListPoliciesRequest())).policies
    node = nodes.nodes[next(n for n in nodes.running if n not in listed.candidate.running)]
    node.refused = {"vfs_read"}
    node.status.stop_when = lambda status: any(one.status.error for one in status.policies)
    change = await policies.PromotePolicy(pb.PromotePolicyRequest(policy=REF))
    assert f"node {node.name}: there is no function 'vfs_read'" in change.error
    node.refused = set()
    promoting = asyncio.ensure_future(policies.PromotePolicy(pb.PromotePolicyRequest(policy=REF)))
    await assert_unanswered(promoting)
    assert "there is no function" in reported(node.name).error
    node.status.resume()
    assert (await promoting).error == ""
    assert {name: node.active() for name, node in nodes.nodes.items()} == dict.fromkeys(
        nodes.running, NEW
    )


async def test_error_of_an_earlier_revision_does_not_end_the_wait_for_a_later_one(
    nodes, policies, reported
):
    node = nodes.nodes["n2"]
    node.refused = {"fd_install"}
    await add(policies, rollout=pb.ROLLOUT_WHEREVER)
    node.status.stop_when = lambda status: any(one.status.prepared for one in status.policies)
    replacing = asyncio.ensure_future(add(policies, "vfs_read", replace=True))
    await eventually(lambda: all(one.active() == NEW for one in nodes.nodes.values()), LONG_S)
    await assert_unanswered(replacing)
    assert (reported("n2").revision, reported("n2").prepared) == (0, 2)
    node.status.resume()
    change = await replacing
    assert change.error == ""
    found = by_node(change.nodes)["n2"]
    assert (found.revision, found.state, found.error) == (2, TP_STATE_ENABLED, "")


async def test_deletion_waits_for_a_node_that_is_still_loading(nodes, policies, reported):
    node = nodes.nodes["n2"]
    node.gate.clear()
    adding = asyncio.ensure_future(add(policies, rollout=pb.ROLLOUT_WHEREVER))
    await eventually(
        lambda: reported("n2") is not None and reported("n2").state == TP_STATE_LOADING, LONG_S
    )
    deleting = asyncio.ensure_future(policies.DeletePolicy(pb.DeletePolicyRequest(policy=REF)))
    assert (await adding).error == (
        "policy grpc:one: stored, and changed again before all nodes confirmed it"
    )
    await eventually(lambda: reported("n1") is None and reported("n3") is None, LONG_S)
    await assert_unanswered(deleting)
    node.gate.set()
    assert (await deleting).error == ""
    assert not any(one.active() for one in nodes.nodes.values())


async def test_change_of_the_selector_waits_for_the_nodes_that_lose_the_policy(
    nodes, policies, reported
):
    await add(policies)
    nodes.nodes["n3"].status.stop()
    request = pb.ConfigurePolicyRequest(policy=REF, nodes=pb.NodeSelector(names=["n1"]))
    configuring = asyncio.ensure_future(policies.ConfigurePolicy(request))
    await eventually(lambda: not nodes.nodes["n3"].active(), LONG_S)
    await assert_unanswered(configuring)
    assert reported("n3").revision == 1
    nodes.nodes["n3"].status.resume()
    assert (await configuring).error == ""
    assert [name for name in nodes.running if nodes.nodes[name].active()] == ["n1"]


async def test_delete_ends_an_addition_that_waits_for_a_node(nodes, policies):
    nodes.nodes["n2"].gate.clear()
    adding = asyncio.ensure_future(add(policies))
    await eventually(lambda: nodes.nodes["n1"].installed and nodes.nodes["n3"].installed, LONG_S)
    deleting = asyncio.ensure_future(policies.DeletePolicy(pb.DeletePolicyRequest(policy=REF)))
    with pytest.raises(Exception, match="another change came first"):
        await asyncio.wait_for(adding, LONG_S)
    nodes.nodes["n2"].gate.set()
    assert (await deleting).error == ""
    assert not any(mode != "off" for node in nodes.nodes.values() for _, mode in node.log)
