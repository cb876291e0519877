"""A runtime that asks the collector before it starts a container, by NRI."""

import asyncio
import os
import signal
import time
from uuid import uuid4

import pytest

from kubernetes.conftest import events_of
from support.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.kubernetes, pytest.mark.timeout(600)]

CONTAINERS = 23
POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicyNamespaced
metadata: {{name: opens, namespace: shop}}
spec:
  kprobes:
  - call: sys_openat
    syscall: true
    args: [{{index: 1, type: string}}]
    selectors:
    - matchArgs: [{{index: 1, operator: Equal, values: ["/{mark}"]}}]
"""


@pytest.fixture
async def hooked(containerd_17, start_collector, tmp_path):
    """A collector with the hook and nothing else to know containers from, and a policy's mark."""
    mark = uuid4().hex
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/opens.yaml").write_text(POLICY.format(mark=mark))
    collector = await start_collector(TETRA_NRI_SOCKET=str(containerd_17.nri_socket))
    await collector.logged("runtime hook registered")
    await collector.logged("policy loaded", policy="static:shop/opens")
    return collector, mark


async def test_policy_selects_containers_from_their_first_call_on(containerd_17, hooked, gateway):
    _, mark = hooked
    pod = await asyncio.to_thread(containerd_17.run_pod, "web-1", "shop", app="web")

    def run_all():
        for number in range(CONTAINERS):
            containerd_17.run(pod, f"c-{number}", "/bin/cat", f"/{mark}")

    await asyncio.to_thread(run_all)

    async def reported():
        found = [e.process_kprobe.process for e in await events_of(gateway, "process_kprobe")]
        names = {one.container_info.name for one in found}
        return found if len(names) >= CONTAINERS else None

    found = await eventually(reported, 120, 0.2)
    assert {(one.pod.name, one.pod.pod_labels["app"]) for one in found} == {("web-1", "web")}
    assert {one.container_info.runtime for one in found} == {"containerd"}


async def test_collector_that_hangs_or_ends_does_not_keep_containers_from_starting(
    containerd_17, hooked
):
    collector, _ = hooked
    pod = await asyncio.to_thread(containerd_17.run_pod, "web-2", "shop")
    os.kill(collector.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        await asyncio.to_thread(containerd_17.run, pod, "first", "/bin/true")
        assert time.monotonic() - started < 60  # the runtime's limit for plugins is 2 s
        await asyncio.to_thread(containerd_17.run, pod, "second", "/bin/true")
    finally:
        os.kill(collector.pid, signal.SIGCONT)
    await collector.stop()
    await asyncio.to_thread(containerd_17.run, pod, "third", "/bin/true")
