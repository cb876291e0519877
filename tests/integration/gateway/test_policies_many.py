"""200 nodes: a policy that is added once is enabled on every one of them, and acknowledged."""

import time
from functools import lru_cache

import pytest

import support.fleet
from support.fleet import document
from support.waiting import eventually
from tetra.v1 import policies_pb2 as pb
from tetra.v1 import policies_pb2_grpc
from tracingpolicy import parse

NODES = 200
LONG_S = 60  # 200 collectors share the CPUs of one machine


@pytest.fixture
async def nodes(start_nodes, monkeypatch):
    # Each collector of a real fleet has a machine to read the document on.
    monkeypatch.setattr(support.fleet, "parse", lru_cache(parse))
    return await start_nodes(*(f"node-{number}" for number in range(NODES)))


async def test_policy_is_on_everywhere_soon_or_nowhere(nodes, gateway):
    policies = policies_pb2_grpc.PoliciesStub(gateway.channel)
    begin = time.monotonic()
    change = await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()), timeout=LONG_S)
    took_s = time.monotonic() - begin
    print(f"{NODES} nodes: added in {took_s:.2f} s")
    assert change.error == ""
    assert sum(node.revision == 1 for node in change.nodes) == NODES
    assert all(node.active() for node in nodes.nodes.values())
    nodes.nodes["node-77"].refused.add("vfs_read")
    request = pb.AddPolicyRequest(yaml=document(call="vfs_read"), replace=True)
    change = await policies.AddPolicy(request, timeout=LONG_S)
    assert change.error == (
        "policy grpc:one: not carried out: node node-77: there is no function 'vfs_read'"
    )
    on = {"grpc:one": ("fd_install", "enforce")}
    assert all(node.active() == on for node in nodes.nodes.values())
    ref = pb.PolicyRef(name="one")
    begin = time.monotonic()
    change = await policies.DeletePolicy(pb.DeletePolicyRequest(policy=ref), timeout=LONG_S)
    print(f"{NODES} nodes: deleted in {time.monotonic() - begin:.2f} s")
    assert change.error == ""
    await eventually(lambda: not any(node.installed for node in nodes.nodes.values()), LONG_S)
    assert took_s < 10  # 0.4 s on the development machine
