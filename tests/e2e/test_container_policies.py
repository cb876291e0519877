"""A policy for one container of a real Docker engine, by its name."""

import asyncio
from uuid import uuid4

import pytest

from e2e.stack import BASE_IMAGE, docker
from support.collector_process import CollectorProcess
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.containers, pytest.mark.timeout(300)]

POLICY = """
apiVersion: tetra.io/v1
kind: TracingPolicy
metadata: {{name: opens}}
spec:
  kprobes:
  - call: sys_openat
    syscall: true
    args: [{{index: 1, type: string}}]
    selectors:
    - matchArgs: [{{index: 1, operator: Equal, values: ["/{mark}"]}}]
      matchContainers: [{{field: name, operator: {operator}, values: [{name}]}}]
"""


@pytest.mark.parametrize("operator", ["In", "NotIn"])
async def test_policy_sees_the_container_that_it_names(tmp_path, nats_server, gateway, operator):
    mark, names = uuid4().hex, [f"tetra-{uuid4().hex[:8]}" for _ in range(2)]
    folder = tmp_path / "policies"
    folder.mkdir()
    text = POLICY.format(mark=mark, operator=operator, name=names[0])
    (folder / "opens.yaml").write_text(text)
    collector = CollectorProcess(
        tmp_path, tmp_path / "cache", nats_server.url, TETRA_DOCKER_SOCKET="/var/run/docker.sock"
    )
    await collector.start()
    await collector.logged("policy loaded", policy="static:opens")
    try:
        for name in names:
            run = ("run", "--rm", "--name", name, BASE_IMAGE, "/bin/cat", f"/{mark}")
            await asyncio.to_thread(docker, *run, check=False)

        async def reported():
            responses = await gateway.read_all(last=1_000_000)
            events = [event for one in responses for event in one.events]
            ended = [e for e in events if e.process_exit.process.arguments == f"/{mark}"]
            if len(ended) < len(names):
                return None
            kprobes = [e.process_kprobe for e in events if e.HasField("process_kprobe")]
            return {one.process.container_info.name for one in kprobes} or {""}

        wanted = {names[0] if operator == "In" else names[1]}
        assert await eventually(reported, 60, 0.2) == wanted
    finally:
        await collector.stop()
