"""A policy for one container of a real Docker engine, by its name."""

import asyncio
from uuid import uuid4

import pytest

from e2e.stack import BASE_IMAGE, docker
from support.collector_process import CollectorProcess
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.containers, pytest.mark.timeout(300)]

CALLS = 80
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
    - matchArgs: [{{index: 1, operator: Prefix, values: ["/{mark}-"]}}]
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
    script = f"for n in $(seq {CALLS}); do cat /{mark}-$n; sleep 0.1; done"
    try:
        both = [("run", "--rm", "--name", name, BASE_IMAGE, "/bin/sh", "-c", script)
                for name in names]  # fmt: skip
        await asyncio.gather(*(asyncio.to_thread(docker, *run, check=False) for run in both))

        async def ended():
            found = await events_of(gateway, "process_exit")
            last = [e for e in found if e.process.arguments == f"/{mark}-{CALLS}"]
            return len(last) >= len(names)

        await eventually(ended, 120, 0.2)
        # Without a runtime hook a busy host may be late by some calls.
        late = {f"/{mark}-{n}" for n in range(CALLS // 2, CALLS + 1)}
        seen = [
            (kprobe.process.container_info.name, kprobe.args[0].string_arg)
            for kprobe in await events_of(gateway, "process_kprobe")
            if kprobe.args[0].string_arg in late
        ]
        wanted = names[0] if operator == "In" else names[1]
        assert sorted(seen) == sorted((wanted, path) for path in late)
    finally:
        await collector.stop()


async def events_of(gateway, kind):
    """Return the inner messages of all events of a kind."""
    responses = await gateway.read_all(last=1_000_000)
    return [getattr(e, kind) for one in responses for e in one.events if e.HasField(kind)]
