"""A bit flips in a file of the stream: what NATS's own checksums drop is named, or repaired.

nats-server skips a message whose checksum is wrong and reports nothing (seen with 2.15.1).
"""

import asyncio
import json
import shutil
import sys
from contextlib import suppress
from typing import Any

import nats
import pytest
from nats.errors import Error

from exporter.node_reader import NodeReader
from gateway.settings import Settings
from support.feeder import Feeder, number_of
from support.gateways import numbers_in, read_numbers, running
from support.nats_server import NatsServer
from support.net import free_port
from support.waiting import eventually
from tetra.v1 import stream_pb2
from tetragon.events_pb2 import GetEventsResponse

GONE = "the stream had them but no longer has them"
NODES = 3


async def tetra(gateway, *arguments):
    """Run the command; return its exit code and what it printed on stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", *arguments, "--server-address", gateway.address,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode in (0, 3), err
    return process.returncode, out.decode(), err.decode()


def flip(folder, mark):
    """Flip a bit where ``mark`` stands in a message of the stream; return the file."""
    for file in sorted(folder.rglob("TETRA_EVENTS/msgs/*.blk")):
        data = bytearray(file.read_bytes())
        at = data.find(mark)
        if at >= 0:
            data[at] ^= 1
            file.write_bytes(data)
            return file
    raise AssertionError(f"{mark!r} is in no file of {folder}")


def argument(number):
    """Return bytes that only event ``number`` contains: see `exec_event`."""
    return f"{number}".encode() + b"x" * 50


async def fill(nc, count=300):
    feeder = Feeder(nc, "one")
    await feeder.publish(count, argument_bytes=50)
    return feeder


def gaps_in(responses):
    return [gap for response in responses for gap in response.gaps]


async def test_the_only_copy_is_damaged(nats_server, start_gateway, nc, tmp_path):
    await start_gateway()
    await fill(nc)
    nats_server.stop()
    flip(tmp_path, argument(155))
    nats_server.start()
    gateway = await start_gateway()
    code, out, _ = await tetra(gateway, "verify")
    assert code == 3
    assert "stream: 1 message missing (number 16 to 16): " + GONE in out
    assert "node one: 10 events missing (number 151 to 160): " + GONE in out
    assert out.splitlines()[-1] == "not complete: 290 events of 1 node, 2 gaps"
    code, out, err = await tetra(gateway, "getevents", "--since", "1h", "--no-follow")
    assert (code, out.count("\n")) == (0, 290)
    assert "gap: node one: 10 events missing (number 151 to 160): " + GONE in err


async def test_the_last_message_is_damaged(nats_server, start_gateway, nc, tmp_path):
    await start_gateway()
    feeder = await fill(nc)
    nats_server.stop()
    flip(tmp_path, argument(295))
    nats_server.start()
    gateway = await start_gateway()
    code, out, _ = await tetra(gateway, "verify")
    assert code == 3
    assert "stream: 1 message missing (number 30 to 30): " + GONE in out
    await feeder.publish(10)
    code, out, _ = await tetra(gateway, "verify")
    assert "node one: 10 events missing (number 291 to 300): " + GONE in out


async def test_a_server_that_was_killed_cuts_the_rest_off(
    nats_server, start_gateway, gateway, nc, tmp_path
):
    """Without its index nats-server rebuilds from the file, up to where that is damaged."""
    call = await gateway.stream()
    feeder = await fill(nc)
    assert await read_numbers(call, 300) == list(range(1, 301))
    place = (await gateway.read_all(last=1))[-1].cursor
    nats_server.stop(kill=True)
    flip(tmp_path, argument(155))
    nats_server.start()
    fresh = await start_gateway()
    code, out, _ = await tetra(fresh, "verify")
    assert code == 3
    assert "stream: messages missing, number unknown: " + GONE in out
    # A follower is notified of what is missing, and receives no duplicates.
    await feeder.publish(10)
    responses = [await asyncio.wait_for(call.read(), 60)]
    while numbers_in(*responses) != list(range(301, 311)):
        responses.append(await asyncio.wait_for(call.read(), 60))
    later = await fresh.read_all(after=place)
    assert numbers_in(*later) == list(range(301, 311))  # who comes back sees nothing twice either
    assert gaps_in(later)
    causes = {(gap.cause, gap.first, gap.last) for gap in gaps_in(responses)}
    assert (stream_pb2.GapNotice.CAUSE_STREAM_DAMAGED, 16, 30) in causes
    code, out, _ = await tetra(fresh, "verify")
    assert "node one: 150 events missing (number 151 to 300)" in out


async def test_messages_deleted_by_hand_are_reported(gateway, feeder, start_gateway):
    await feeder.publish(100)
    await feeder.js.delete_msg("TETRA_EVENTS", 4)
    for one in (gateway, await start_gateway()):  # from the window, from NATS
        responses = await one.read_all(after=stream_pb2.Cursor())
        assert len(numbers_in(*responses)) in (90, 100)
    assert [(gap.node_name, gap.first, gap.last) for gap in gaps_in(responses)] == [
        ("", 4, 4),
        ("n1", 31, 40),
    ]


class Cluster:
    """Three nats-servers on loopback."""

    def __init__(self, folder):
        ports = [free_port() for _ in range(NODES)]
        routes = [f"nats://127.0.0.1:{port}" for port in ports]
        self.servers = []
        self.folders = [folder / f"n{n}" for n in range(NODES)]
        for n, own in enumerate(self.folders):
            own.mkdir()
            config = own / "cluster.conf"
            config.write_text(
                f"server_name: n{n}\n"
                f"cluster {{ name: c, listen: '127.0.0.1:{ports[n]}', routes: {routes} }}\n"
                "jetstream { sync_interval: always }\n"
            )
            self.servers.append(NatsServer(own, "-c", str(config)))

    @property
    def url(self):
        return ",".join(server.url for server in self.servers)

    async def state(self, nc):
        """Return the stream's information, or nothing while there is no leader."""
        with suppress(Error, TimeoutError):
            reply = await nc.request("$JS.API.STREAM.INFO.TETRA_EVENTS", b"", timeout=1)
            return json.loads(reply.data).get("cluster", {})
        return {}

    async def lead(self, nc, server):
        """Make ``server`` the leader of the stream."""

        async def leads():
            leader = (await self.state(nc)).get("leader")
            if leader and leader != server:
                body = json.dumps({"placement": {"preferred": server}}).encode()
                with suppress(Error, TimeoutError):
                    await nc.request("$JS.API.STREAM.LEADER.STEPDOWN.TETRA_EVENTS", body, timeout=1)
            return leader == server

        await eventually(leads, 60, every_s=0.5)

    async def whole(self, nc):
        """Wait until every copy is current."""

        async def current():
            state = await self.state(nc)
            peers = state.get("replicas", ())
            return state.get("leader") and len(peers) == 2 and all(p["current"] for p in peers)

        await eventually(current, 60, every_s=0.1)


@pytest.fixture
async def cluster(tmp_path):
    """A cluster with 300 events in three copies, and a connection to all of it."""
    cluster = Cluster(tmp_path)
    nc = None
    try:
        for server in cluster.servers:
            server.start()
        async with running(settings_of(cluster.url)):
            nc = await nats.connect([s.url for s in cluster.servers], reconnect_time_wait=0.05,
                                    max_reconnect_attempts=-1)  # fmt: skip
            await fill(nc)
        yield cluster, nc
    finally:
        if nc is not None:
            await nc.close()
        for server in cluster.servers:
            server.stop(kill=True)


def settings_of(url):
    settings: dict[str, Any] = {"nats_url": url, "listen_address": "127.0.0.1:0"}
    return Settings(stream_replicas=NODES, **settings)


async def damage(cluster, nc, *, kill):
    """Stop a server that does not lead, flip a bit in its copy, start it, make it the leader."""
    leader = (await cluster.state(nc))["leader"]
    victim = next(n for n in range(NODES) if f"n{n}" != leader)
    cluster.servers[victim].stop(kill=kill)
    file = flip(cluster.folders[victim], argument(155))
    cluster.servers[victim].start()
    await cluster.whole(nc)
    await cluster.lead(nc, f"n{victim}")
    return victim, file


async def numbers_of_node(history, node):
    """Read all events of a node, as an exporter beside its collector does."""
    reader, found = NodeReader(history, "sink", node), []
    await reader.open(None, "oldest")
    while len(found) < 300:
        chunk = await reader.next()
        assert not chunk.gaps
        found += [number_of(GetEventsResponse.FromString(payload))
                  for batch, _ in chunk.batches for payload in batch.payloads]  # fmt: skip
    return found


@pytest.mark.timeout(240)
async def test_a_damaged_copy_is_named_and_the_others_serve_its_events(cluster):
    cluster, nc = cluster
    victim, file = await damage(cluster, nc, kill=False)
    assert argument(155) not in file.read_bytes()  # nats-server did not see it
    async with running(settings_of(cluster.servers[victim].url)) as gateway:
        history = gateway.gateway.streams.history
        responses = []

        async def read_and_repaired():  # any server may answer; one that lost the lead, later
            responses[:] = await gateway.read_all(after=stream_pb2.Cursor())
            assert numbers_in(*responses) == list(range(1, 301))
            return history.repaired_total

        await eventually(read_and_repaired, 60)
        [found] = gaps_in(responses)
        assert found.cause == stream_pb2.GapNotice.CAUSE_COPY_DAMAGED
        assert (found.server, found.first, found.last) == (f"n{victim}", 16, 16)
        code, out, _ = await tetra(gateway, "verify")
        unchecked, _, _ = await tetra(gateway, "verify", "--no-copies", "--since", "1h")
        repaired = history.repaired_total

        async def read_node_and_repaired():  # as an exporter of one node does
            assert await numbers_of_node(history, "one") == list(range(1, 301))
            return history.repaired_total > repaired

        await eventually(read_node_and_repaired, 60)
    assert code == 3
    assert unchecked in (0, 3)  # whichever copy answers
    assert f"damage: NATS server n{victim}: its copy of the stream lacks 1 message (" in out
    assert out.splitlines()[-1] == ("complete, but not in every copy: 300 events of 1 node, 0 gaps")


@pytest.mark.timeout(240)
async def test_a_copy_whose_end_was_cut_off_is_filled_by_nats_itself(cluster):
    cluster, nc = cluster
    _, file = await damage(cluster, nc, kill=True)
    async with running(settings_of(cluster.url)) as gateway:
        code, out, _ = await tetra(gateway, "verify")
    assert (code, out.splitlines()[-1]) == (0, "complete: 300 events of 1 node, 0 gaps")
    assert argument(155) in file.read_bytes()


@pytest.mark.timeout(240)
async def test_a_removed_copy_is_rebuilt_from_the_others(cluster):
    """What docs/reliability.md says to do about a damaged one, while one more server is away."""
    cluster, nc = cluster
    victim, _ = await damage(cluster, nc, kill=False)
    cluster.servers[victim].stop()
    async with running(settings_of(cluster.url)) as gateway:
        code, out, _ = await tetra(gateway, "verify")
    assert code == 0
    assert f"NATS server n{victim}: its copy of the stream could not be read" in out
    shutil.rmtree(cluster.folders[victim] / "jetstream")
    cluster.servers[victim].start()
    await cluster.whole(nc)
    async with running(settings_of(cluster.url)) as gateway:
        code, out, _ = await tetra(gateway, "verify")
    assert (code, out.splitlines()[-1]) == (0, "complete: 300 events of 1 node, 0 gaps")


@pytest.mark.timeout(240)
async def test_message_missing_in_every_copy_is_a_gap(cluster):
    cluster, nc = cluster
    for server in cluster.servers:
        server.stop()
    for folder in cluster.folders:
        flip(folder, argument(155))
    for server in cluster.servers:
        server.start()
    await cluster.whole(nc)
    async with running(settings_of(cluster.url)) as gateway:
        code, out, _ = await tetra(gateway, "verify")
    assert code == 3
    assert "node one: 10 events missing (number 151 to 160): " + GONE in out
