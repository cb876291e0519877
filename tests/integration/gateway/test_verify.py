"""``tetra verify`` on a real stream: complete, or each gap with its cause."""

import asyncio
import json
import sys

from support.feeder import Feeder


async def verify(gateway, *arguments):
    """Run the command; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "verify", "--server-address", gateway.address,
        *arguments, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert err == b"", err
    return process.returncode, out.decode()


async def test_a_complete_stream(gateway, nc):
    one, two = Feeder(nc, "one"), Feeder(nc, "two")
    await one.publish(120)
    await two.publish(30)
    code, out = await verify(gateway)
    assert code == 0
    assert out.splitlines()[-1] == "complete: 150 events of 2 nodes, 0 gaps"
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["one", "120"], ["two", "30"]]


async def test_a_hole_a_loss_and_a_pause_are_listed(gateway, nc):
    feeder = Feeder(nc, "one")
    await feeder.publish(20)
    feeder.sequence += 7  # dropped by its spool
    feeder.loss.by_cause["spool"] = 7
    await feeder.publish(10)
    feeder.start_ns += 5_000_000_000  # another collector
    feeder.loss.Clear()
    feeder.loss.by_cause["kernel_exit"] = 2
    await feeder.publish(10)
    code, out = await verify(gateway, "-o", "json")
    assert code == 3
    verdict = json.loads(out)
    assert not verdict["whole"]
    (node,) = verdict["nodes"]
    assert (node["events"], node["missing"], node["lost"], node["twice"]) == (40, 7, 9, 0)
    text = "\n".join(verdict["holes"])
    assert (
        "node one: 7 events missing (number 21 to 27): lost between collector and gateway" in text
    )
    assert "node one: 7 spool, reported at " in text
    assert "node one: 2 kernel_exit, reported at " in text
    assert "no collector ran" in text


async def test_a_duplicate_event_is_detected(gateway, nc):
    feeder = Feeder(nc, "one")
    await feeder.publish(10)
    again = feeder.batch([(await _first(gateway)).SerializeToString()])  # under a new number
    await feeder.send(again)
    code, out = await verify(gateway)
    assert code == 3
    assert out.splitlines()[1].split()[-1] == "1"


async def _first(gateway):
    return (await gateway.read_all(last=10))[1].events[0]


async def test_events_that_aged_out_before_the_beginning_are_no_gap(start_gateway, feeder):
    await feeder.publish(100)
    await feeder.js.purge_stream("TETRA_EVENTS", keep=5)
    code, out = await verify(await start_gateway())  # one that has none of it in memory
    assert code == 0, out
    assert "aged out: 5 messages at the start of the stream" in out


async def test_chosen_nodes_and_time(gateway, nc):
    await Feeder(nc, "one").publish(5)
    await Feeder(nc, "two").publish(5)
    code, out = await verify(gateway, "--node", "two", "--since", "1h")
    assert (code, out.splitlines()[-1]) == (0, "complete: 5 events of 1 node, 0 gaps")
