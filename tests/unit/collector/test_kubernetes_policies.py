"""Policies of an API server: what the manager is asked for, and what the status says."""

import asyncio
from types import SimpleNamespace

import pytest

from collector.kubernetes import follow
from collector.kubernetes.client import ApiClient
from collector.kubernetes.policies import DOMAIN, KubernetesPolicies
from collector.policies.entry import Entry, Identity, State
from support.api_server import ApiServer
from support.waiting import eventually
from tracingpolicy import parse
from tracingpolicy.values import Mode

P1 = Identity("p1", "", DOMAIN)
HOOK = {"call": "sys_read", "syscall": True}


class Manager:
    """Loads everything at once, and notes what was wanted."""

    def __init__(self):
        self.wanted = {}
        self.entries = {}
        self.applied = 0

    async def apply(self, wanted):
        for one in wanted:
            self.applied += 1
            self.wanted[one.identity] = one.active
            if one.active is None:
                self.entries.pop(one.identity, None)
                continue
            state = State.ENABLED if one.active.enabled else one.active.off
            error = one.active.error
            entry = Entry(one.identity, 2, one.active.policy, mode=Mode.ENFORCE, error=error)
            entry.state = State.LOAD_ERROR if error else state
            self.entries[one.identity] = entry

    def get(self, identity):
        return self.entries.get(identity)


def resource(name="p1", generation=1, namespace="", **spec):
    about = {"name": name, "generation": generation, "managedFields": [{"manager": "kubectl"}]}
    if namespace:
        about["namespace"] = namespace
    return {"metadata": about, "spec": {"kprobes": [HOOK]} | spec}


@pytest.fixture
async def host(monkeypatch):
    """Policies that follow a server, until the test ends."""
    monkeypatch.setattr(follow, "RETRY_S", (0.01, 0.02))
    server, manager = ApiServer(), Manager()
    server.only = "/tracingpolicies"
    server.start()
    listeners = []
    node = SimpleNamespace(labels={"zone": "a"}, listen=listeners.append)
    policies = KubernetesPolicies(ApiClient(server.access), node, "n1", manager, parse)
    task = asyncio.create_task(policies.run())
    await eventually(lambda: server.watches)
    yield SimpleNamespace(server=server, manager=manager, node=node, listeners=listeners)
    task.cancel()
    await asyncio.wait({task})
    server.stop()


async def written(host, **wanted):
    """Return the path and status of the last patch, when it has these members."""

    def last():
        for path, change in reversed(host.server.patches):
            status = change["status"]["nodes"]["n1"]
            if wanted.items() <= status.items():
                return path, status
        return None

    return await eventually(last)


async def test_resource_is_loaded_and_its_status_written(host):
    host.server.emit("ADDED", resource())
    path, status = await written(host, state="enabled")
    assert path.endswith("/p1/status")
    assert status == {
        "state": "enabled", "mode": "enforce", "message": "loaded", "observedGeneration": 1,
    }  # fmt: skip
    assert host.manager.wanted[P1].policy.name == "p1"


async def test_change_of_the_status_alone_loads_nothing(host):
    host.server.emit("ADDED", resource())
    await written(host, state="enabled")
    host.server.emit("MODIFIED", resource() | {"status": {"nodes": {"n2": {"state": "enabled"}}}})
    host.server.emit("ADDED", resource("p2"))
    await eventually(lambda: Identity("p2", "", DOMAIN) in host.manager.wanted)
    assert host.manager.applied == 2


async def test_changed_resource_is_loaded_again(host):
    host.server.emit("ADDED", resource())
    await written(host, observedGeneration=1)
    host.server.emit("MODIFIED", resource(generation=2, kprobes=[HOOK | {"call": "sys_write"}]))
    await written(host, observedGeneration=2)
    assert host.manager.wanted[P1].policy.kprobes[0].call == "sys_write"


async def test_deleted_resource_is_no_longer_wanted(host):
    host.server.emit("ADDED", resource())
    await written(host, state="enabled")
    host.server.emit("DELETED", resource())
    await eventually(lambda: host.manager.wanted[P1] is None)


async def test_resource_missing_from_a_new_list_is_removed(host):
    host.server.emit("ADDED", resource())
    await written(host, state="enabled")
    host.server.items = []
    host.server.expire()
    await eventually(lambda: host.manager.wanted[P1] is None)


async def test_mistake_is_written_with_its_reason(host):
    host.server.emit("ADDED", resource(kprobes=[{"call": "sys_read", "sysacll": True}]))
    _, status = await written(host, state="load_error")
    assert 'did you mean "syscall"?' in status["message"]


async def test_node_that_is_not_selected_skips_the_policy(host):
    host.server.emit("ADDED", resource(nodeSelector={"matchLabels": {"zone": "b"}}))
    _, status = await written(host, state="skipped")
    assert status["message"] == "nodeSelector does not select this node"
    host.node.labels = {"zone": "b"}
    host.listeners[0](host.node.labels)
    await written(host, state="enabled")
    assert host.manager.wanted[P1].policy.node_selector is None
