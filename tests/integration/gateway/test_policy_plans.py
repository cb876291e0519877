"""What a policy would become on nodes, asked through a real gateway and NATS."""

import asyncio

import grpc
import pytest

from support.fleet import document, fleet, known
from tetra.v1 import plans_pb2 as pb
from tetra.v1 import plans_pb2_grpc


@pytest.fixture
async def nodes(nats_server, gateway, tmp_path):
    """Two nodes that plan, one that does not know how, one that fails."""

    async def explain(request):
        source = "int hook0() {}" if request.with_source else ""
        return pb.NodePlan(node_name="forged", kernel=request.yaml, source=source)

    async def fail(request):
        raise ZeroDivisionError

    async with fleet(nats_server.url, tmp_path / "nodes") as found:
        found.start("n1", labels={"zone": "a"}, explain=explain)
        found.start("n2", labels={"zone": "b"}, explain=explain)
        found.start("old", labels={"zone": "c"})
        found.start("sick", labels={"zone": "c"}, explain=fail)
        await known(gateway.gateway.fleet, found)
        yield found


@pytest.fixture
def plans(gateway):
    return plans_pb2_grpc.PolicyPlansStub(gateway.channel)


async def test_selected_nodes_answer_under_their_own_names(nodes, plans):
    answer = await plans.PlanPolicy(pb.PlanPolicyRequest(yaml="x", nodes={"names": ["n*"]}))
    assert [(one.node_name, one.kernel, one.source) for one in answer.nodes] == [
        ("n1", "x", ""),
        ("n2", "x", ""),
    ]
    request = pb.PlanPolicyRequest(yaml="x", nodes={"labels": {"zone": "b"}}, with_source=True)
    (only,) = (await plans.PlanPolicy(request)).nodes
    assert (only.node_name, only.source) == ("n2", "int hook0() {}")


async def test_nodes_that_cannot_plan_are_named_with_their_reasons(nodes, plans):
    answer = await plans.PlanPolicy(pb.PlanPolicyRequest(yaml="x", nodes={"labels": {"zone": "c"}}))
    assert {one.node_name: one.error for one in answer.nodes} == {
        "old": "an older collector, which cannot plan without loading",
        "sick": "planning failed: the collector's log says why",
    }


async def test_a_document_that_is_too_large_reaches_no_node(nodes, plans):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plans.PlanPolicy(pb.PlanPolicyRequest(yaml="#" * (256 << 10) + "#"))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_node_that_is_not_alive_is_not_asked(nodes, plans):
    await nodes.stop("n1")
    request = pb.PlanPolicyRequest(yaml=document(), nodes={"names": ["n2"]})
    async with asyncio.timeout(30):
        (only,) = (await plans.PlanPolicy(request)).nodes
    assert only.node_name == "n2"
