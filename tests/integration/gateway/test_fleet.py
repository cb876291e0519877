"""Many nodes through one gateway: who is there, who has gone, what each is asked."""

import asyncio

import grpc
import pytest

from support.feeder import Feeder
from support.gateways import read_numbers
from support.waiting import eventually
from tetra.v1 import stream_pb2
from tetragon import sensors_pb2, tetragon_pb2

NODES = stream_pb2.ListNodesRequest()


@pytest.fixture
async def fleet(nc, gateway):
    """Ten collectors that answer."""
    feeders = {name: Feeder(nc, name) for name in (f"node-{n}" for n in range(10))}
    for feeder in feeders.values():
        await feeder.answer()
    return feeders


async def nodes_of(gateway):
    return {n.node_name: n for n in (await gateway.events.ListNodes(NODES)).nodes}


async def test_every_collector_is_listed(gateway, fleet):
    listed = await nodes_of(gateway)
    assert set(listed) == set(fleet)
    assert all(n.alive and n.kernel == "6.1.0" and n.boot_id for n in listed.values())


async def test_a_killed_collector_is_shown_as_down(gateway, fleet):
    assert (await nodes_of(gateway))["node-3"].alive
    await fleet["node-3"].be_silent()
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def gone():
        return not (await nodes_of(gateway))["node-3"].alive

    await eventually(gone, 20, 0.2)
    assert loop.time() - start < 15
    listed = await nodes_of(gateway)
    assert [name for name, n in listed.items() if not n.alive] == ["node-3"]
    assert listed["node-3"].last_seen.seconds > 0
    health = await gateway.sensors.GetHealth(tetragon_pb2.GetHealthStatusRequest())
    found = [h for h in health.health_status if "node-3" in h.details]
    assert [h.status for h in found] == [tetragon_pb2.HEALTH_STATUS_STOPPED]
    await fleet["node-3"].answer()

    async def back():
        return (await nodes_of(gateway))["node-3"].alive

    await eventually(back, 20, 0.2)


async def test_one_stream_has_all_nodes_and_a_chosen_one_its_own(gateway, fleet):
    everything = await gateway.stream()
    two = await gateway.stream(nodes=["node-2", "node-7"])
    await asyncio.gather(*(f.publish(30) for name, f in fleet.items() if name != "node-7"))
    await fleet["node-7"].publish(30)
    assert len(await read_numbers(everything, 300)) == 300
    seen = set()
    count = 0
    while count < 60:
        message = await two.read()
        seen |= {e.node_name for e in message.events}
        count += len(message.events)
    assert (seen, count) == ({"node-2", "node-7"}, 60)


async def test_log_levels_of_one_and_of_all(gateway, fleet):
    def asked(level):
        return sensors_pb2.SetDebugRequest(
            flag=sensors_pb2.CONFIG_FLAG_LOG_LEVEL, level=level
        )  # fmt: skip

    only = (("tetra-node", "node-4"),)
    await gateway.sensors.SetDebug(asked(sensors_pb2.LOG_LEVEL_DEBUG), metadata=only)
    assert [n for n, f in fleet.items() if f.log_level == "debug"] == ["node-4"]
    level = sensors_pb2.GetDebugRequest(flag=sensors_pb2.CONFIG_FLAG_LOG_LEVEL)
    answer = await gateway.sensors.GetDebug(level, metadata=only)
    assert answer.level == sensors_pb2.LOG_LEVEL_DEBUG
    await gateway.sensors.SetDebug(asked(sensors_pb2.LOG_LEVEL_ERROR))
    assert {f.log_level for f in fleet.values()} == {"error"}
    await gateway.sensors.SetDebug(asked(sensors_pb2.LOG_LEVEL_INFO))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.sensors.SetDebug(
            asked(sensors_pb2.LOG_LEVEL_INFO), metadata=(("tetra-node", "unknown"),)
        )
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "node unknown: no answer"


async def test_policies_of_all_nodes_and_of_one(gateway, fleet):
    for name, domain in (("node-4", "static"), ("node-2", "grpc"), ("node-2", "static")):
        status = sensors_pb2.TracingPolicyStatus(name="files", domain=domain)
        status.details.node_name = name
        fleet[name].policies.append(status)

    async def listed(domain="", metadata=()):
        request = sensors_pb2.ListTracingPoliciesRequest(domain=domain)
        answer = await gateway.sensors.ListTracingPolicies(request, metadata=metadata)
        return [(policy.details.node_name, policy.domain) for policy in answer.policies]

    everything = [("node-2", "grpc"), ("node-2", "static"), ("node-4", "static")]
    assert await listed() == everything
    assert await listed("static") == everything[1:]
    assert await listed("nothing") == []
    assert await listed(metadata=(("tetra-node", "node-4"),)) == everything[2:]
    domains = await gateway.sensors.ListDomains(sensors_pb2.ListDomainsRequest())
    assert list(domains.domains) == ["grpc", "static"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await listed(metadata=(("tetra-node", "unknown"),))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_new_gateway_lists_nodes_that_were_silent_before_its_start(
    gateway, fleet, start_gateway
):
    await fleet["node-1"].publish(3)
    await fleet["node-1"].be_silent()
    second = await start_gateway()

    async def known():
        return (await nodes_of(second)).get("node-1")

    node = await eventually(known)
    assert not node.alive
    assert node.last_sequence == 3
