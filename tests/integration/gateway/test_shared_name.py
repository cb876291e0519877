"""Two hosts with one node name: the gateway names them, and so does `tetra verify`."""

import asyncio
import sys
import time

import pytest

from support.feeder import Feeder
from support.waiting import eventually
from tetra.v1 import stream_pb2

OTHER_BOOT = "b0000000-0000-4000-8000-000000000002"


async def tetra(gateway, *arguments):
    """Run the command; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", *arguments, "--server-address", gateway.address,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode()


@pytest.fixture
async def hosts(gateway, nc, monkeypatch):
    """Two collectors of one name, of which the second one started later."""
    monkeypatch.setattr("gateway.fleet.POLL_S", 0.4)
    first, second = Feeder(nc, "web1"), Feeder(nc, "web1", OTHER_BOOT)
    second.sequence = 1000  # other processes
    await first.answer()
    await first.publish(10)
    second.start_ns = time.time_ns()
    await second.publish(10)
    return first, second


async def shared(gateway):
    listed = await gateway.events.ListNodes(stream_pb2.ListNodesRequest())
    return next((n for n in listed.nodes if n.node_name == "web1" and n.others), None)


async def test_hosts_of_one_name_are_reported_until_one_has_left(gateway, hosts, monkeypatch):
    first, second = hosts
    code, out = await tetra(gateway, "status")
    assert (code, out) == (0, "Health Status: running\n")
    await second.answer()
    node = await eventually(lambda: shared(gateway), 30)
    boots = {node.boot_id, *(other.boot_id for other in node.others)}
    assert boots == {first.boot_id, OTHER_BOOT}
    code, out = await tetra(gateway, "status")
    assert code == 0
    assert out.splitlines()[1:] == [
        "node web1: 2 collectors answer in its name: set NODE_NAME on all hosts but one "
        "(tetra nodes shows their boots)"
    ]
    _, out = await tetra(gateway, "nodes")
    assert out.splitlines()[1].split()[:3] == ["web1", "2", "hosts"]
    assert out.splitlines()[2].startswith("node web1: 2 collectors answer in its name, of boots ")
    assert all(boot in out for boot in boots)
    await first.be_silent()
    monkeypatch.setattr("gateway.identities.GONE_AFTER_S", 0.5)

    async def alone():
        return not await shared(gateway)

    await eventually(alone, 30)


async def test_verify_names_the_shared_name_and_no_pause(gateway, hosts):
    first, second = hosts
    code, out = await tetra(gateway, "verify")
    assert code == 3  # so far it looks as if the host was started again
    assert "no collector ran" in out
    await first.publish(10)
    await second.publish(10)
    await first.publish(10)
    code, out = await tetra(gateway, "verify")
    assert code == 3
    lines = out.splitlines()
    assert lines[1].split()[:2] == ["web1", "50"]
    assert lines[1].split()[-3:] == ["0", "0", "0"]
    assert lines[2].startswith("clash: node web1: two hosts publish in its name, at least since ")
    assert lines[3] == "not complete: 50 events of 1 node, 1 gap"
