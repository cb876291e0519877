"""The pods of a real API server, with their containers in a real containerd."""

import asyncio
from uuid import uuid4

import pytest

from kubernetes.conftest import COMMAND, NODE, events_of
from support.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.kubernetes, pytest.mark.timeout(600)]


def pod(name, **metadata):
    """Return a pod of this node, as a ReplicaSet makes it."""
    return {
        "metadata": {"name": name, "labels": {"app": "web", "pod-template-hash": "5d9f7"}}
        | metadata,
        "spec": {
            "nodeName": NODE,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "nginx",
                    "image": "nginx:1",
                    "securityContext": {"privileged": True},
                    "livenessProbe": {"exec": {"command": [COMMAND, "1", name]}},
                }
            ],
        },
    }


OWNED = {
    "generateName": "web-5d9f7-",
    "ownerReferences": [
        {
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d9f7", "controller": True,
            "uid": "5d9f7000-0000-4000-8000-000000000000",
        }
    ],
}  # fmt: skip


@pytest.fixture
async def run(containerd_17, api):
    """Make a pod at the API server, then run it as a kubelet would."""

    async def run(namespace, name, *command, **metadata):
        path = f"/api/v1/namespaces/{namespace}/pods"
        [made] = await asyncio.to_thread(api.make, path, pod(name, **metadata))
        uid = made["metadata"]["uid"]
        sandbox = await asyncio.to_thread(containerd_17.run_pod, name, namespace, uid=uid)
        full_id = await asyncio.to_thread(containerd_17.run, sandbox, "nginx", *command)
        return made, full_id

    return run


async def process_of(gateway, mark):
    """Return the process of the exec of the command with a mark, when it has been reported."""

    async def reported():
        for event in await events_of(gateway):
            process = event.process_exec.process
            if process.binary == COMMAND and mark in process.arguments:
                return event
        return None

    return await eventually(reported, 120, 0.2)


async def test_pod_has_the_fields_that_tetragon_fills(
    containerd_17, api, namespace, start_collector, gateway, run
):
    await start_collector(
        TETRA_CRI_SOCKET=str(containerd_17.socket), TETRA_ENABLE_K8S_API="true",
        TETRA_K8S_KUBECONFIG_PATH=str(api.kubeconfig(account="tetra-collector")),
        TETRA_K8S_NODE_NAME=NODE, TETRA_CLUSTER_NAME="test",
    )  # fmt: skip
    name = f"web-{uuid4().hex[:8]}"
    made, full_id = await run(namespace, name, COMMAND, "1", name, **OWNED)
    event = await process_of(gateway, name)
    found = event.process_exec.process.pod
    assert (found.namespace, found.name, found.uid) == (namespace, name, made["metadata"]["uid"])
    assert dict(found.pod_labels) == made["metadata"]["labels"]
    assert (found.workload, found.workload_kind) == ("web", "Deployment")
    container = found.container
    assert (container.id, container.name) == (f"containerd://{full_id}", "nginx")
    assert container.security_context.privileged
    assert container.maybe_exec_probe  # the command is that of the probe
    assert container.pid.value == 1
    assert event.node_labels["zone"] == "a"
    assert event.cluster_name == "test"


async def test_collector_before_the_api_server_and_through_its_death(
    containerd_17, api, namespace, start_collector, gateway, run
):
    config = await asyncio.to_thread(api.kubeconfig, account="tetra-collector")
    await asyncio.to_thread(api.kill_server)
    collector = await start_collector(
        TETRA_CRI_SOCKET=str(containerd_17.socket), TETRA_ENABLE_K8S_API="true",
        TETRA_K8S_KUBECONFIG_PATH=str(config), TETRA_K8S_NODE_NAME=NODE,
    )  # fmt: skip
    await collector.logged("API server not followed", path="/api/v1/pods")
    await asyncio.to_thread(api.start_server)
    await collector.logged("API server followed again", path="/api/v1/pods")
    first, second = (f"web-{uuid4().hex[:8]}" for _ in range(2))
    await run(namespace, first, COMMAND, "1", first, **OWNED)
    assert (await process_of(gateway, first)).process_exec.process.pod.workload == "web"

    # Killed while a pod is deleted and another is made: after a compaction its watch is too old.
    await asyncio.to_thread(api.kill_server)
    await asyncio.to_thread(api.start_server)
    await asyncio.to_thread(
        api.call, "DELETE", f"/api/v1/namespaces/{namespace}/pods/{first}?gracePeriodSeconds=0"
    )
    await asyncio.to_thread(api.compact)
    await run(namespace, second, COMMAND, "1", second, **OWNED)
    found = (await process_of(gateway, second)).process_exec.process.pod
    assert (found.name, found.workload) == (second, "web")
