"""Deleted policies leave the bucket, when time and every node allow it."""

from functools import partial

import pytest

from bus import direct
from bus.policies import BUCKET_STREAM, KEYS_ALL, Key, key_of
from gateway.policies import documents, forget, streams
from support.fleet import document
from support.waiting import eventually
from tetra.v1 import policies_pb2 as pb

LONG_S = 30


@pytest.fixture
async def nodes(start_nodes):
    return await start_nodes("n1", "n2")


@pytest.fixture
def names(nc):
    """What the bucket has a message of."""

    async def read():
        found = await direct.get_messages(nc, BUCKET_STREAM, {"multi_last": [KEYS_ALL]})
        return {key_of(message.subject).name for message in found}

    return read


def add(policies, name, **options):
    return policies.AddPolicy(pb.AddPolicyRequest(yaml=document(name), **options))


def delete(policies, name):
    return policies.DeletePolicy(pb.DeletePolicyRequest(policy=pb.PolicyRef(name=name)))


async def revisions(policies, name):
    request = pb.GetPolicyHistoryRequest(policy=pb.PolicyRef(name=name))
    return [one.revision for one in (await policies.GetPolicyHistory(request)).revisions]


async def test_deleted_policy_is_removed_from_the_bucket_after_its_time(
    nodes, gateway, policies, names, nc, monkeypatch
):
    monkeypatch.setattr(streams, "FORGOTTEN_S", 1)
    for name in ("kept", "gone"):
        assert (await add(policies, name)).error == ""
    assert (await delete(policies, "gone")).error == ""
    assert await revisions(policies, "gone") == [2, 1]
    monkeypatch.setattr(forget, "KEEP_S", 0.0)

    async def only_kept():
        return await names() == {"kept"}

    await eventually(only_kept, LONG_S, 0.1)
    assert await revisions(policies, "kept") == [1]
    assert all(node.active() == {"grpc:kept": ("fd_install", "enforce")}
               for node in nodes.nodes.values())  # fmt: skip
    # It is the same bucket, though its newest message is gone.
    store = gateway.gateway.policies.store
    before = store.sequence
    await store._watch.sync(nc)
    assert store.sequence == before
    change = await add(policies, "gone")
    assert (change.error, change.revision) == ("", 1)
    assert all(len(node.active()) == 2 for node in nodes.nodes.values())
    assert (await delete(policies, "kept")).error == ""


async def test_deleted_policy_is_kept_until_every_node_has_confirmed(
    nodes, gateway, policies, names, monkeypatch
):
    await add(policies, "one")
    nodes.nodes["n2"].status.stop()
    monkeypatch.setattr(forget, "KEEP_S", 0.0)
    request = pb.DeletePolicyRequest(policy=pb.PolicyRef(name="one"))
    deleting = policies.DeletePolicy(request)
    store = gateway.gateway.policies.store
    await eventually(lambda: store.get(Key("one")).policy.current.deleted, LONG_S)
    await gateway.gateway.policies.janitor.forgetting.run_once()
    assert not store.get(Key("one")).expires
    nodes.nodes["n2"].status.resume()
    assert (await deleting).error == ""
    await eventually(lambda: store.get(Key("one")).expires, LONG_S)


async def test_old_names_do_not_fill_the_bucket(nodes, policies, monkeypatch):
    monkeypatch.setattr(documents, "MAX_KEYS", 6)
    monkeypatch.setattr(forget, "MOST_KEPT", 2)
    monkeypatch.setattr(forget, "KEEP_LEAST_S", 0.0)

    async def added(name):
        try:
            return await add(policies, name)
        except Exception as error:
            assert "at most 6 are allowed" in str(error)  # noqa: PT017  # forgotten soon
            return None

    for number in range(12):
        change = await eventually(partial(added, f"p{number}"), LONG_S, 0.2)
        assert change.error == ""
        assert (await delete(policies, f"p{number}")).error == ""
    assert await revisions(policies, "p11") == [2, 1]
