"""What a token may change and see of the fleet's policies, and how much anyone may store."""

import asyncio

import grpc
import pytest

from gateway.policies import documents
from support.fleet import by_node, document, known
from tetra.v1 import policies_pb2 as pb
from tetra.v1 import policies_pb2_grpc
from tetragon import sensors_pb2

NAMES = ("n1", "n2", "hidden")


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
async def gateway(start_gateway, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(
        "all read,policies  # carol\nlooker read\none read,policies n1\ntwo read,policies n1,n2\n"
    )
    return await start_gateway(token_file=tokens)


@pytest.fixture
async def nodes(start_nodes):
    return await start_nodes(*NAMES)


async def code_of(call):
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def ref(name):
    return pb.PolicyRef(name=name)


async def test_reading_does_not_allow_to_change(nodes, gateway, policies):
    metadata = bearer("looker")
    for call in (
        policies.AddPolicy(pb.AddPolicyRequest(yaml=document()), metadata=metadata),
        policies.DeletePolicy(pb.DeletePolicyRequest(policy=ref("one")), metadata=metadata),
        gateway.sensors.AddTracingPolicy(
            sensors_pb2.AddTracingPolicyRequest(yaml=document()), metadata=metadata
        ),
        gateway.sensors.DeleteTracingPolicy(
            sensors_pb2.DeleteTracingPolicyRequest(name="one"), metadata=metadata
        ),
    ):
        assert await code_of(call) == grpc.StatusCode.PERMISSION_DENIED
    call = policies.TryPolicy(pb.TryPolicyRequest(yaml=document()), metadata=metadata)
    assert await call.code() == grpc.StatusCode.PERMISSION_DENIED
    listed = await policies.ListPolicies(pb.ListPoliciesRequest(), metadata=metadata)
    assert not listed.policies


async def test_token_of_a_node_changes_policies_of_that_node_only(nodes, gateway, policies):
    metadata = bearer("one")
    change = await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()), metadata=metadata)
    assert set(by_node(change.nodes)) == {"n1"}
    assert [name for name in NAMES if nodes.nodes[name].active()] == ["n1"]
    for names in (["n2"], ["n1", "n2"], ["n*"]):
        request = pb.AddPolicyRequest(yaml=document("other"), nodes=pb.NodeSelector(names=names))
        denied = await code_of(policies.AddPolicy(request, metadata=metadata))
        assert denied == grpc.StatusCode.PERMISSION_DENIED
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document("wide")), metadata=bearer("all"))
    for call in (
        policies.DeletePolicy(pb.DeletePolicyRequest(policy=ref("wide")), metadata=metadata),
        policies.AddPolicy(
            pb.AddPolicyRequest(yaml=document("wide", "vfs_read"), replace=True), metadata=metadata
        ),
        policies.ConfigurePolicy(
            pb.ConfigurePolicyRequest(policy=ref("wide"), enable=False), metadata=metadata
        ),
        policies.RollbackPolicy(
            pb.RollbackPolicyRequest(policy=ref("wide"), revision=1), metadata=metadata
        ),
        gateway.sensors.DeleteTracingPolicy(
            sensors_pb2.DeleteTracingPolicyRequest(name="wide"), metadata=metadata
        ),
        policies.ConfigurePolicy(
            pb.ConfigurePolicyRequest(
                policy=ref("one"), nodes=pb.NodeSelector(names=["n1", "hidden"])
            ),
            metadata=metadata,
        ),
    ):
        assert await code_of(call) == grpc.StatusCode.PERMISSION_DENIED
    change = await policies.DeletePolicy(
        pb.DeletePolicyRequest(policy=ref("one")), metadata=metadata
    )
    assert change.error == ""


async def test_token_of_a_node_sees_nothing_of_another(nodes, policies):
    everything = bearer("all")
    hidden = pb.NodeSelector(names=["hidden"])
    await policies.AddPolicy(
        pb.AddPolicyRequest(yaml=document("secret"), nodes=hidden), metadata=everything
    )
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document("wide")), metadata=everything)
    metadata = bearer("one")
    call = policies.StreamPolicies(pb.ListPoliciesRequest(with_yaml=True), metadata=metadata)
    watched = await call.read()
    call.cancel()
    listed = await policies.ListPolicies(pb.ListPoliciesRequest(), metadata=metadata)
    for response in (listed, watched):
        (policy,) = response.policies
        assert policy.policy.name == "wide"
        assert set(by_node(policy.nodes)) == {"n1"}
    request = pb.GetPolicyHistoryRequest(policy=ref("secret"))
    got = await code_of(policies.GetPolicyHistory(request, metadata=metadata))
    assert got == grpc.StatusCode.NOT_FOUND
    audit = policies.StreamAudit(pb.StreamAuditRequest(), metadata=metadata)
    assert {entry.policy.name async for entry in audit} == {"wide"}


async def test_audit_names_the_holder_of_the_token(nodes, policies):
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()), metadata=bearer("all"))
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document("b")), metadata=bearer("two"))
    audit = policies.StreamAudit(pb.StreamAuditRequest(), metadata=bearer("looker"))
    found = [entry.origin.who async for entry in audit]
    assert found[:2] == ["carol", "carol"]
    assert found[2].startswith("token sha256:")


async def test_documents_are_limited_in_size_and_number(nodes, policies, monkeypatch):
    metadata = bearer("all")
    large = document() + "# " + "x" * documents.MAX_DOCUMENT_BYTES
    got = await code_of(policies.AddPolicy(pb.AddPolicyRequest(yaml=large), metadata=metadata))
    assert got == grpc.StatusCode.RESOURCE_EXHAUSTED
    monkeypatch.setattr(documents, "MAX_POLICIES", 2)
    codes = [
        await code_of(
            policies.AddPolicy(pb.AddPolicyRequest(yaml=document(name)), metadata=metadata)
        )
        for name in ("a", "b", "c")
    ]
    assert codes == [
        grpc.StatusCode.OK, grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED,
    ]  # fmt: skip
    await policies.DeletePolicy(pb.DeletePolicyRequest(policy=ref("a")), metadata=metadata)
    change = await policies.AddPolicy(pb.AddPolicyRequest(yaml=document("c")), metadata=metadata)
    assert change.error == ""


async def test_two_changes_of_one_policy_at_once_end_with_one_of_them(
    nodes, policies, start_gateway, tmp_path
):
    other = await start_gateway(token_file=tmp_path / "tokens")
    await known(other.gateway.fleet, nodes)
    second = policies_pb2_grpc.PoliciesStub(other.channel)
    metadata = bearer("all")
    await policies.AddPolicy(pb.AddPolicyRequest(yaml=document()), metadata=metadata)
    calls = ["vfs_read", "vfs_write"]
    codes = await asyncio.gather(
        *(
            code_of(
                stub.AddPolicy(
                    pb.AddPolicyRequest(yaml=document(call=call), replace=True), metadata=metadata
                )
            )
            for stub, call in zip((policies, second), calls, strict=True)
        )
    )
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.ABORTED}
    done = [call for call, code in zip(calls, codes, strict=True) if code == grpc.StatusCode.OK]
    on = {"grpc:one": ((done or ["fd_install"])[-1], "enforce")}
    assert done
    states = [nodes.nodes[name].active() for name in NAMES]
    assert states == [states[0]] * 3
    assert len(done) == 2 or states[0] == on
