"""Tracing policies as resources of a real API server: loaded, replaced, refused; their status."""

import asyncio
from uuid import uuid4

import pytest

from kubernetes.conftest import NODE, events_of
from kubernetes.resources import policy
from support.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.kubernetes, pytest.mark.timeout(600)]

GROUP = "/apis/cilium.io/v1alpha1"


@pytest.fixture
def paths(namespace):
    """Where the resources of each kind are."""
    return f"{GROUP}/tracingpolicies", f"{GROUP}/namespaces/{namespace}/tracingpoliciesnamespaced"


@pytest.fixture
async def collector(containerd_17, api, start_collector):
    """A collector with the rights of deploy/kubernetes/rbac.yaml."""
    return await start_collector(
        TETRA_CRI_SOCKET=str(containerd_17.socket), TETRA_ENABLE_K8S_API="true",
        TETRA_K8S_KUBECONFIG_PATH=str(api.kubeconfig(account="tetra-collector")),
        TETRA_K8S_NODE_NAME=NODE,
    )  # fmt: skip


async def status_of(api, path, **wanted):
    """Return this node's part of a resource's status, when it has these members."""

    async def written():
        found = await asyncio.to_thread(api.call, "GET", path)
        status = found.get("status", {}).get("nodes", {}).get(NODE, {})
        return status if wanted.items() <= status.items() else None

    return await eventually(written, 120, 0.2)


async def test_namespaced_policy_sees_its_pod_and_no_other(
    containerd_17, api, namespace, paths, collector, gateway
):
    mark, (cluster, namespaced) = uuid4().hex, paths
    name, scoped = (f"{what}-{uuid4().hex[:8]}" for what in ("all", "scoped"))
    api.make(cluster, policy(name, mark))
    api.make(namespaced, policy(scoped, mark, namespace=namespace))
    await status_of(
        api, f"{cluster}/{name}", state="enabled", message="loaded", observedGeneration=1
    )
    await status_of(api, f"{namespaced}/{scoped}", state="enabled")
    await collector.logged("policy loaded", policy=f"k8s:{namespace}/{scoped}")

    def run_pods():
        for where in (namespace, "elsewhere"):
            pod = containerd_17.run_pod("web-1", where)
            script = f"while true; do cat /{mark}; usleep 100000; done"
            containerd_17.run(pod, "nginx", "/bin/sh", "-c", script)

    await asyncio.to_thread(run_pods)

    async def reported():
        found = [e.process_kprobe for e in await events_of(gateway, "process_kprobe")]
        seen = {(one.policy_name, one.process.pod.namespace) for one in found}
        return seen if expected <= seen else None

    expected = {(name, "elsewhere"), (name, namespace), (scoped, namespace)}
    assert await eventually(reported, 120, 0.2) == expected
    api.call("DELETE", f"{cluster}/{name}")
    api.call("DELETE", f"{namespaced}/{scoped}")
    await collector.logged("policy removed", policy=f"k8s:{namespace}/{scoped}")
    await collector.logged("policy removed", policy=f"k8s:{name}")


async def test_mistake_is_in_the_status_and_a_corrected_resource_is_loaded(api, paths, collector):
    name, (cluster, _) = f"wrong-{uuid4().hex[:8]}", paths
    api.make(cluster, policy(name, "a", kprobes=[{"call": "sys_opnat", "syscall": True}]))
    status = await status_of(api, f"{cluster}/{name}", state="load_error")
    assert "sys_opnat" in status["message"]
    right = policy(name, "a")["spec"]
    api.merge(f"{cluster}/{name}", {"spec": right})
    await status_of(
        api, f"{cluster}/{name}", state="enabled", message="loaded", observedGeneration=2
    )
    api.call("DELETE", f"{cluster}/{name}")
    await collector.logged("policy removed", policy=f"k8s:{name}")


async def test_policy_is_for_the_nodes_that_it_selects(api, paths, collector):
    name, (cluster, _) = f"nodes-{uuid4().hex[:8]}", paths
    api.make(cluster, policy(name, "a", nodeSelector={"matchLabels": {"zone": "b"}}))
    await status_of(api, f"{cluster}/{name}", state="skipped")
    api.merge(f"/api/v1/nodes/{NODE}", {"metadata": {"labels": {"zone": "b"}}})
    try:
        await status_of(api, f"{cluster}/{name}", state="enabled")
    finally:
        api.merge(f"/api/v1/nodes/{NODE}", {"metadata": {"labels": {"zone": "a"}}})
    await status_of(api, f"{cluster}/{name}", state="skipped")
    api.call("DELETE", f"{cluster}/{name}")


async def test_policies_stay_while_the_server_is_unreachable(api, paths, collector):
    kept, gone = (f"{what}-{uuid4().hex[:8]}" for what in ("kept", "gone"))
    cluster, _ = paths
    api.make(cluster, policy(kept, "a"), policy(gone, "b"))
    for name in (kept, gone):
        await status_of(api, f"{cluster}/{name}", state="enabled")
    await asyncio.to_thread(api.kill_server)
    await collector.logged("API server not followed", path=cluster)
    await asyncio.to_thread(api.start_server)
    api.call("DELETE", f"{cluster}/{gone}")
    await collector.logged("policy removed", policy=f"k8s:{gone}")
    removed = [line for line in collector.log.read_text().splitlines() if "policy removed" in line]
    assert not any(kept in line for line in removed)
    api.call("DELETE", f"{cluster}/{kept}")


def test_server_rejects_invalid_policies(api, paths):
    cluster, _ = paths
    for spec in ({"kprobes": {}}, {"loader": "yes"}, {"podSelector": {"matchLabels": {"a": 1}}}):
        with pytest.raises(AssertionError, match="Invalid"):
            api.make(cluster, policy("refused", "a", **spec))
