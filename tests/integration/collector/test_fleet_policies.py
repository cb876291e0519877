"""Policies of the fleet on three real collectors of this host, each with its own probes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack

import pytest

from integration.collector.test_killed import READY_S, Collector, headers, running  # noqa: F401
from support.fleet import by_node
from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails
from support.waiting import eventually
from tetra.v1 import policies_pb2 as pb
from tetragon import sensors_pb2

pytestmark = pytest.mark.kernel

NODES = tuple(f"fleet-{os.getpid()}-{number}" for number in (1, 2, 3))
DOCUMENT = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {{name: numbers}}
spec:
  kprobes:
  - call: sys_openat
    message: "revision {revision}"
    args:
    - {{index: 1, type: string}}
    selectors:
    - matchArgs:
      - {{index: 1, operator: Prefix, values: ["{prefix}/"]}}
"""
# Opens <folder>/0, <folder>/1, ... as fast as asked until a line is written to it; prints how many.
OPENER = """\
import os, select, sys, time
print("started", flush=True)
number = 0
while not select.select([sys.stdin], [], [], 0.0005)[0]:
    try:
        os.open(f"{sys.argv[1]}/{number}", 0)
    except FileNotFoundError:
        pass
    number += 1
print(number)
"""


@pytest.fixture
async def collectors(nats_server, headers, tmp_path, gateway):  # noqa: F811
    """Three collectors that the gateway knows."""
    async with AsyncExitStack() as stack:
        found = {}
        for name in NODES:
            folder = tmp_path / name
            folder.mkdir()
            settings = {"NODE_NAME": name, "TETRA_NODE_NAME": name}
            collector = Collector(folder, headers, nats_server.url, **settings)
            found[name] = await stack.enter_async_context(running(collector))
        await eventually(lambda: all_known(gateway, NODES), READY_S)
        yield found


async def all_known(gateway, names):
    nodes = await gateway.gateway.fleet.describe()
    return {n.node_name for n in nodes if n.alive and n.HasField("policies")} >= set(names)


@pytest.fixture
def opened_in(tmp_path):
    """A folder in which nothing else is opened."""
    folder = tmp_path / "opened"
    folder.mkdir()
    return folder


def document(prefix, revision=1):
    return DOCUMENT.format(prefix=prefix, revision=revision)


async def numbers_by_node(gateway):
    """Return the numbers that each node reported, in the order of the stream."""
    found = {name: [] for name in NODES}
    for response in await gateway.read_all(last=10_000_000):
        assert not [gap for gap in response.gaps if gap.node_name in NODES]
        for event in response.events:
            if event.process_kprobe.policy_name == "numbers":
                path = event.process_kprobe.args[0].string_arg
                found[event.node_name].append(int(path.rsplit("/", 1)[1]))
    return found


async def test_policy_is_replaced_under_load_without_a_call_unseen(
    gateway, collectors, policies, opened_in
):
    add = pb.AddPolicyRequest(yaml=document(opened_in))
    change = await policies.AddPolicy(add, timeout=READY_S)
    assert change.error == ""
    assert set(by_node(change.nodes)) == set(NODES)
    for node in change.nodes:
        assert node.state == sensors_pb2.TP_STATE_ENABLED, node
        assert node.hooks[0].hook == "kprobe:sys_openat"
        assert node.hooks[0].mechanisms
    opener = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OPENER, opened_in, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert await opener.stdout.readline() == b"started\n"
    for revision in (2, 3, 4):
        await asyncio.sleep(0.3)
        yaml = document(opened_in, revision)
        request = pb.AddPolicyRequest(yaml=yaml, replace=True)
        assert (await policies.AddPolicy(request, timeout=READY_S)).error == ""
    await asyncio.sleep(0.3)
    output, _ = await opener.communicate(b"\n")
    opened = int(output)
    assert opened > 100

    async def all_there():
        found = await numbers_by_node(gateway)
        return all(numbers and max(numbers) == opened - 1 for numbers in found.values()) and found

    found = await eventually(all_there, READY_S, 0.5)
    for name, numbers in found.items():
        missing = sorted(set(range(opened)) - set(numbers))
        assert missing == [], (name, missing[:10], opened)
        # While two revisions are on, both report a call.
        repeated = len(numbers) - len(set(numbers))
        assert repeated < opened / 2, (name, repeated, opened)
    removed = await policies.DeletePolicy(
        pb.DeletePolicyRequest(policy=pb.PolicyRef(name="numbers")), timeout=READY_S
    )
    assert removed.error == ""


async def test_killed_collectors_load_the_policy_again_soon_after_their_start(
    gateway, collectors, policies, opened_in
):
    request = pb.AddPolicyRequest(yaml=document(opened_in))
    assert (await policies.AddPolicy(request, timeout=READY_S)).error == ""
    first = NODES[0]
    await collectors[first].end(signal.SIGKILL)
    replaced = pb.AddPolicyRequest(yaml=document(opened_in, 2), replace=True)
    change = await policies.AddPolicy(replaced, timeout=READY_S)
    assert change.error == ""  # it is not alive
    start_s = time.monotonic()
    await collectors[first].start()
    loaded = collectors[first].logged("policy loaded")
    ready_s = time.monotonic()

    async def has_it():
        listed = await policies.ListPolicies(pb.ListPoliciesRequest(name="numbers"))
        node = by_node(listed.policies[0].nodes).get(first)
        return node is not None and node.alive and node.revision == change.revision

    await eventually(has_it, READY_S, 0.05)
    print(
        f"started in {ready_s - start_s:.2f} s, policies {time.monotonic() - ready_s:.2f} s later"
    )
    assert collectors[first].logged("policy loaded") >= max(loaded, 1)


async def test_document_that_no_kernel_can_load_is_nowhere(collectors, policies, opened_in):
    wrong = document(opened_in).replace("sys_openat", "sys_nosuchcall")
    change = await policies.AddPolicy(pb.AddPolicyRequest(yaml=wrong), timeout=READY_S)
    assert any(f"node {name}: numbers:6:11: " in change.error for name in NODES), change.error
    listed = await policies.ListPolicies(pb.ListPoliciesRequest())
    assert not listed.policies
