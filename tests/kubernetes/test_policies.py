"""Policies for some pods and containers of a real containerd: from a document to its events."""

import asyncio
from contextlib import suppress
from uuid import uuid4

import pytest

from kubernetes.conftest import events_of
from support.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.kubernetes, pytest.mark.timeout(600)]

POLICY = """
apiVersion: tetra.io/v1
kind: {kind}
metadata: {{name: {name}{namespace}}}
spec:
  {selectors}
  kprobes:
  - call: sys_openat
    syscall: true
    args: [{{index: 1, type: string}}]
    selectors:
    - matchArgs: [{{index: 1, operator: Equal, values: ["/{mark}"]}}]
      {filters}
"""


@pytest.fixture
def mark():
    """A file name that nothing else opens."""
    return uuid4().hex


@pytest.fixture
def write_policies(tmp_path, mark):
    """Write documents into the policy folder."""

    def write(**policies):
        folder = tmp_path / "policies"
        folder.mkdir(exist_ok=True)
        for name, (kind, namespace, selectors, filters) in policies.items():
            text = POLICY.format(
                kind=kind, name=name, selectors=selectors, filters=filters, mark=mark,
                namespace=f", namespace: {namespace}" if namespace else "",
            )  # fmt: skip
            (folder / f"{name}.yaml").write_text(text)

    return write


PODS = [  # name, namespace, app, container
    ("web-1", "shop", "web", "nginx"),
    ("db-1", "shop", "db", "mysql"),
    ("web-2", "admin", "web", "nginx"),
]


async def test_policies_see_the_pods_that_they_select_and_no_other(
    containerd, start_collector, gateway, write_policies, mark
):
    write_policies(
        namespaced=("TracingPolicyNamespaced", "shop", "", ""),
        labels=("TracingPolicy", "", "podSelector: {matchLabels: {app: web}}", ""),
        names=(
            "TracingPolicy", "", "",
            "matchContainers: [{field: name, operator: In, values: [mysql]}]",
        ),
        all=("TracingPolicy", "", "podSelector: {}", ""),
    )  # fmt: skip
    collector = await start_collector(TETRA_CRI_SOCKET=str(containerd.socket))
    for name in ("namespaced", "labels", "names", "all"):
        scoped = f"shop/{name}" if name == "namespaced" else name
        await collector.logged("policy loaded", policy=f"static:{scoped}")

    def run_pods():
        for name, namespace, app, container in PODS:
            pod = containerd.run_pod(name, namespace, app=app)
            # Without a runtime hook a busy host may miss the first calls.
            script = f"while true; do cat /{mark}; usleep 100000; done"
            containerd.run(pod, container, "/bin/sh", "-c", script)

    await asyncio.to_thread(run_pods)
    await asyncio.to_thread(open_on_host, mark)

    async def seen():
        found = {}
        for event in await events_of(gateway, "process_kprobe"):
            kprobe = event.process_kprobe
            pod = f"{kprobe.process.pod.namespace}/{kprobe.process.pod.name}"
            # A process may start before a runtime without events has answered about its pod.
            if pod != "/" or not kprobe.process.docker or containerd.has_events:
                found.setdefault(kprobe.policy_name, set()).add(pod)
        return found

    expected = {
        "namespaced": {"shop/web-1", "shop/db-1"},
        "labels": {"shop/web-1", "admin/web-2"},
        "names": {"shop/db-1"},
        "all": {"shop/web-1", "shop/db-1", "admin/web-2"},
    }

    async def all_seen():  # policies select a container one after another
        return await seen() == expected

    with suppress(TimeoutError):
        await eventually(all_seen, 120, 0.2)
    assert await seen() == expected


def open_on_host(mark):
    """Open the file outside of containers."""
    try:
        open(f"/{mark}").close()
    except FileNotFoundError:
        return
