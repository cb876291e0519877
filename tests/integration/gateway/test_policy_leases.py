"""A gateway that is killed in the middle of a change, and another that removes what it left."""

import asyncio
import os
import signal

import grpc
import pytest

from support.fleet import document, fleet
from support.gateway_process import gateway_process
from support.waiting import eventually
from tetra.v1 import policies_pb2 as pb
from tetra.v1 import policies_pb2_grpc

LONG_S = 60
NEW = document(call="vfs_read")


@pytest.fixture
async def nodes(nats_server, tmp_path):
    async with fleet(nats_server.url, tmp_path / "nodes") as found:
        for name in ("n1", "n2"):
            found.start(name)
        yield found


async def all_alive(policies):
    """Add and delete a policy until both nodes confirm it."""
    try:
        change = await policies.AddPolicy(pb.AddPolicyRequest(yaml=document("any"), replace=True))
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.UNAVAILABLE:  # it starts
            raise
        return False
    assert change.error == ""
    return len(change.nodes) == 2


async def test_candidate_of_a_killed_gateway_is_removed_by_another(nats_server, nodes):
    async with (
        gateway_process(nats_server.url, to_be_killed=True) as (address, pid),
        gateway_process(nats_server.url) as (other_address, _),
        grpc.aio.insecure_channel(address) as channel,
        grpc.aio.insecure_channel(other_address) as other_channel,
    ):
        killed = policies_pb2_grpc.PoliciesStub(channel)
        policies = policies_pb2_grpc.PoliciesStub(other_channel)
        for one in (killed, policies):
            await eventually(lambda stub=one: all_alive(stub), LONG_S, 0.2)  # type: ignore[misc]
        nodes.nodes["n2"].gate.clear()
        adding = asyncio.ensure_future(killed.AddPolicy(pb.AddPolicyRequest(yaml=NEW)))
        await eventually(lambda: len(nodes.nodes["n1"].installed) == 2, LONG_S)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError):
            await adding

        async def candidates():
            listed = await policies.ListPolicies(pb.ListPoliciesRequest(name="one"))
            return [one.candidate for one in listed.policies]

        (left,) = await candidates()
        assert left.lease_s == 10
        nodes.nodes["n2"].gate.set()

        async def removed():
            return not await candidates()

        await eventually(removed, LONG_S, 0.2)
        await eventually(
            lambda: all(len(node.installed) == 1 for node in nodes.nodes.values()), LONG_S
        )
        assert not any(("vfs_read", "enforce") in node.log for node in nodes.nodes.values())

        async def entries():
            audit = policies.StreamAudit(pb.StreamAuditRequest(name="one"))
            return [(entry.origin.action, entry.error) async for entry in audit]

        ended = (pb.PolicyOrigin.ACTION_AUTO_ABORT, "its gateway has not finished it")
        found = await eventually(lambda: has(entries, ended), LONG_S, 0.1)
        assert found == [(pb.PolicyOrigin.ACTION_ADD, ""), ended]
        change = await policies.AddPolicy(pb.AddPolicyRequest(yaml=NEW))
        assert (change.error, len(change.nodes)) == ("", 2)
        assert all("grpc:one" in node.active() for node in nodes.nodes.values())


async def has(entries, wanted):
    found = await entries()
    return found if wanted in found else None
