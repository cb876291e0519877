"""`helm install` of the chart with the project's images, in a real cluster of one node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from e2e.stack import programs_of
from kubernetes.conftest import KUBERNETES, PARTS
from kubernetes.resources import policy
from support.bpf_programs import loaded_programs
from support.containerd import IMAGE
from support.kubernetes_cluster import NODE, KubernetesCluster
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.waiting import wait_until

pytestmark = [
    pytest.mark.kernel, pytest.mark.kubernetes, pytest.mark.containers, pytest.mark.timeout(1500),
]  # fmt: skip

CHART = KUBERNETES.parent / "helm/tetra"
IMAGES = ("tetra-collector", "tetra-gateway", "tetra-cli", "nats:2.15-alpine")
RELEASE, WHERE = "tetra", "monitoring"
TETRA = Path(sys.executable).with_name("tetra")
INSTALLED = {"tetra-nats", "tetra-gateway", "tetra-collector"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesCluster]:
    """A cluster whose runtime has the images that Docker built."""
    started = KubernetesCluster(PARTS, tmp_path_factory.mktemp("cluster"))
    try:
        started.start()
        archive = tmp_path_factory.mktemp("images") / "images.tar"
        subprocess.run(["docker", "save", "--output", archive, *IMAGES], check=True)
        started.containerd.import_images(archive)
        archive.unlink()
        yield started
    finally:
        started.stop()


def helm(cluster: KubernetesCluster, *arguments: str, values: object = None) -> str:
    """Run helm in the namespace of the release."""
    done = subprocess.run(
        [PARTS / "helm", *arguments, "--namespace", WHERE, "--kubeconfig", cluster.config],
        capture_output=True, text=True, input=json.dumps(values),
        env=os.environ | {"HELM_CACHE_HOME": "/tmp/helm-cache"},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stderr}\n{cluster.pod_logs()}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(
    cluster: KubernetesCluster, tmp_path_factory: pytest.TempPathFactory
) -> KubernetesCluster:
    """The chart with its defaults, but for what a release of 2020 does not have."""
    folder = tmp_path_factory.mktemp("chart")
    chart = shutil.copytree(CHART, folder / "tetra")
    about = yaml.safe_load((chart / "Chart.yaml").read_text()) | {"kubeVersion": ">=0.0.0-0"}
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
    data = folder / "data"
    data.mkdir(mode=0o777)
    data.chmod(0o777)  # no driver of volumes gives it to the server's user here
    volume = {
        "metadata": {"name": "data"},
        "spec": {
            "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": str(data)},
        },
    }  # fmt: skip
    cluster.api.make("/api/v1/persistentvolumes", volume)
    cluster.api.make("/api/v1/namespaces", {"metadata": {"name": WHERE}})
    values = {
        "clusterName": "test",
        "image": {"repository": "docker.io/library", "tag": "latest"},
        "collector": {"statePath": str(folder / "state")},
        "gateway": {"podDisruptionBudget": {"enabled": False}},  # policy/v1 came with 1.21
    }
    helm(cluster, "install", RELEASE, str(chart), "--values", "-", values=values)
    cluster.follow_services()
    wait_until(lambda: ready(cluster), 400, lambda: described(cluster), 0.5)
    return cluster


def described(cluster: KubernetesCluster) -> str:
    """Return what a person would look at when pods do not start."""
    pods = [(p["metadata"]["name"], p["status"]) for p in cluster.pods(WHERE)]
    return f"{json.dumps(pods)[-6000:]}\n{cluster.pod_logs()}\n{cluster.log('kubelet')}"


def ready(cluster: KubernetesCluster) -> bool:
    """Return whether every part of the release has pods, and all are ready."""
    pods = cluster.pods(WHERE)
    conditions = [
        {one["type"]: one["status"] for one in pod["status"].get("conditions", ())} for pod in pods
    ]
    parts = {"-".join(pod["metadata"]["name"].split("-")[:2]) for pod in pods}
    return parts == INSTALLED and all(found.get("Ready") == "True" for found in conditions)


@pytest.fixture(scope="module")
def server(installed: KubernetesCluster) -> str:
    """The address of the gateways' service."""
    path = f"/api/v1/namespaces/{WHERE}/services/{RELEASE}-gateway"
    service = installed.api.call("GET", path)["spec"]
    address = f"{service['clusterIP']}:{service['ports'][0]['port']}"

    def answers() -> bool:  # kube-proxy may learn later than we that a gateway is ready
        done = subprocess.run([TETRA, "--server-address", address, "status"], capture_output=True)
        return done.returncode == 0

    wait_until(answers, 120, lambda: described(installed), 0.5)
    return address


def events(server: str, *options: str) -> list[dict[str, Any]]:
    """Return the past events that the client prints."""
    done = subprocess.run(
        [TETRA, "--server-address", server, "getevents", "-o", "json", "--since", "1h",
         "--no-follow", *options],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def run_shop(cluster: KubernetesCluster, namespace: str, mark: str) -> None:
    """Run a deployment whose pod opens a file with the mark all the time."""
    cluster.api.make("/api/v1/namespaces", {"metadata": {"name": namespace}})
    container = {
        "name": "web", "image": IMAGE,
        "command": ["/bin/sh", "-c", f"while true; do cat /{mark}; usleep 200000; done"],
    }  # fmt: skip
    labels = {"app": "shop"}
    deployment = {
        "metadata": {"name": "shop"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }  # fmt: skip
    cluster.api.make(f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment)


def test_release_passes_its_own_test(installed):
    assert "Phase:          Succeeded" in helm(installed, "test", RELEASE, "--timeout", "3m")


def test_event_of_a_pod_has_namespace_pod_container_and_workload(installed, server):
    namespace, mark = f"shop-{uuid4().hex[:8]}", uuid4().hex
    run_shop(installed, namespace, mark)

    def reported():
        found = events(server, "-e", "PROCESS_EXEC", "--namespace", namespace)
        return [one for one in found if mark in one["process_exec"]["process"]["arguments"]]

    def running():  # the API server may learn of a container after its first event
        found = installed.pods(namespace)
        states = [one for pod in found for one in pod["status"].get("containerStatuses", [])]
        return found if any("containerID" in one and one["ready"] for one in states) else None

    (pod,) = wait_until(running, 240, lambda: described(installed), 1)
    event = wait_until(reported, 120, lambda: described(installed), 1)[-1]
    found = event["process_exec"]["process"]["pod"]
    assert (found["namespace"], found["name"]) == (namespace, pod["metadata"]["name"])
    assert found["uid"] == pod["metadata"]["uid"]
    assert (found["workload"], found["workload_kind"]) == ("shop", "Deployment")
    assert found["container"]["name"] == "web"
    assert found["container"]["id"] == pod["status"]["containerStatuses"][0]["containerID"]
    assert (event["node_name"], event["cluster_name"]) == (NODE, "test")


def test_namespaced_policy_sees_its_pod_and_not_the_other(installed, server):
    seen, other, mark = f"seen-{uuid4().hex[:8]}", f"other-{uuid4().hex[:8]}", uuid4().hex
    run_shop(installed, seen, mark)
    path = f"/apis/cilium.io/v1alpha1/namespaces/{seen}/tracingpoliciesnamespaced"
    installed.api.make(path, policy("opened", mark, namespace=seen))
    run_shop(installed, other, mark)

    def executed(namespace):
        return len(events(server, "-e", "PROCESS_EXEC", "--namespace", namespace))

    def reported():
        found = events(server, "-e", "PROCESS_KPROBE", "--policy-names", "opened")
        pods = [one["process_kprobe"]["process"].get("pod", {}) for one in found]
        return [pod.get("namespace") for pod in pods]

    wait_until(lambda: seen in reported(), 240, lambda: described(installed), 1)
    count = executed(other)
    # The other pod has opened the file since the policy was seen at work.
    wait_until(lambda: executed(other) > count + 10, 120, lambda: described(installed), 1)
    assert set(reported()) <= {seen, None}  # None: opened before its pod was known


def collectors() -> list[int]:
    """Return the pids of the collectors that run in pods."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            cgroup, command = ((process / name).read_text() for name in ("cgroup", "cmdline"))
            if "kubepods" in cgroup and "tetra-collector" in command:
                found.append(int(process.name))
    return found


def test_uninstall_leaves_nothing(installed):
    ours = {program for pid in collectors() for program in programs_of(pid)}
    assert ours
    helm(installed, "uninstall", RELEASE, "--cascade", "foreground", "--wait")
    wait_until(lambda: not installed.pods(WHERE), 240, lambda: described(installed), 0.5)

    def programs():
        return ours & set(loaded_programs())

    def pins():  # by the name of the node
        return list(Path("/sys/fs/bpf").glob(f"tetra/{NODE}-*/**/*"))

    def resources():  # what waits for its parts to end may be there for a moment
        apps, rights = f"/apis/apps/v1/namespaces/{WHERE}", "/apis/rbac.authorization.k8s.io/v1"
        paths = [f"{apps}/{kind}" for kind in ("daemonsets", "deployments", "statefulsets")]
        paths += [f"{rights}/{kind}" for kind in ("clusterroles", "clusterrolebindings")]
        items = [one for path in paths for one in installed.api.call("GET", path)["items"]]
        names = [one["metadata"]["name"] for one in items]
        return [name for name in names if name.startswith(RELEASE)]

    wait_until(lambda: not programs(), 120, programs, 0.5)
    wait_until(lambda: not pins(), 120, pins, 0.5)
    wait_until(lambda: not resources(), 120, resources, 0.5)
