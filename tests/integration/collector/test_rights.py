"""The shipped NATS configuration on a real server: each user can do its work and nothing else."""

import asyncio
import json
import os
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.errors import Error

from gateway.main import Gateway
from gateway.settings import Settings
from support.feeder import Feeder, exec_event
from support.nats_server import NATS_SERVER
from support.net import free_port
from support.waiting import eventually

CONFIG = Path(__file__).parents[3] / "deploy/nats/nats-server.conf"
USERS = ("collector", "gateway", "operator")


# What SECURITY.md has for a host whose collector may speak for that host only.
BOUND = """
    {
      user: collector-web1
      password: collector-web1-secret
      permissions: {
        publish: [
          "tetra.events.web1"
          "$JS.API.DIRECT.GET.TETRA_EVENTS.tetra.events.web1"
          "tetra.control.web1"
        ]
        subscribe: ["_INBOX.collector-web1.>", "tetra.control", "tetra.control.web1"]
        allow_responses: { max: 4096, expires: "30s" }
      }
    }
"""


@pytest.fixture
async def server(tmp_path):
    """The server as the container starts it, on ports of its own, with a user more."""
    port = free_port()
    text = CONFIG.read_text().replace("  users: [\n", f"  users: [{BOUND}", 1)
    assert BOUND in text
    for ours, theirs in (("/data", tmp_path), ("4222", port), ("8222", free_port())):
        assert text.count(ours) == 1
        text = text.replace(ours, str(theirs))
    (tmp_path / "nats.conf").write_text(text)
    command = [NATS_SERVER, "--config", tmp_path / "nats.conf"]
    passwords = {f"{user.upper()}_PASSWORD": f'"{user}-secret"' for user in USERS}
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | passwords, stdout=quiet, stderr=quiet
    )
    url = f"nats://127.0.0.1:{port}"

    async def answers():
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True

    await eventually(answers)
    yield url
    process.terminate()
    await process.wait()


@pytest.fixture
async def gateway(server):
    """A gateway with its own rights: it makes the stream."""
    settings: dict[str, Any] = {
        "nats_url": server, "nats_user": "gateway", "nats_password": "gateway-secret",
        "listen_address": "127.0.0.1:0",
    }  # fmt: skip
    running = Gateway(Settings(**settings))
    task = asyncio.create_task(running.run())
    await eventually(lambda: running.subscriber.live)
    yield running
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def user_of(url, name):
    """Connect as a user; yield the connection and the errors that the server sends it."""
    refused = []

    async def note(error):
        refused.append(str(error).lower())

    nc = await nats.connect(
        url, user=name, password=f"{name}-secret", inbox_prefix=f"_INBOX.{name}", error_cb=note,
        allow_reconnect=False, connect_timeout=5,
    )  # fmt: skip
    try:
        yield nc, refused
    finally:
        await nc.close()


async def is_refused(url, name, *, publish="", subscribe="", body=b""):
    """Return whether the server forbids it."""
    async with user_of(url, name) as (nc, refused):
        if publish:
            await nc.publish(publish, body)
        if subscribe:
            await nc.subscribe(subscribe)
        with suppress(Error):
            await nc.flush()
        await asyncio.sleep(0)
        await nc.flush()
        return any("permissions violation" in text for text in refused)


async def test_each_does_its_work(server, gateway):
    async with user_of(server, "collector") as (nc, refused):
        feeder = Feeder(nc, "one")
        await feeder.publish(20)
        await feeder.answer()
        nodes = await gateway.fleet.describe()
        assert [n.node_name for n in nodes if n.alive] == ["one"]
        await eventually(lambda: gateway.streams.broadcaster.statistics().events_total == 20)
        assert refused == []


async def test_a_bound_user_speaks_for_its_own_host_only(server, gateway):
    async with user_of(server, "collector-web1") as (nc, refused):
        feeder = Feeder(nc, "web1")
        await feeder.publish(3)
        # Its subject is its own; what it says there is not.
        forged = feeder.batch([exec_event(7, node="web2")])
        forged.node_name = "web2"
        await feeder.send(forged, identified=False)
        mixed = [exec_event(8, node="web1"), exec_event(9, node="web2")]
        await feeder.send(feeder.batch(mixed), identified=False)
        statistics = gateway.streams.broadcaster.statistics
        await eventually(lambda: gateway.streams.malformed == {"message": 1, "event": 1})
        assert refused == []
    async with user_of(server, "operator") as (nc, _):
        assert [node.node_name for node in gateway.fleet.nodes()] == ["web1"]
        assert statistics().events_total == 5


@pytest.mark.parametrize(
    ("user", "action"),
    [
        ("collector-web1", {"publish": "tetra.events.web2"}),
        ("collector-web1", {"publish": "tetra.control.web2"}),
        ("collector-web1", {"subscribe": "tetra.control.web2"}),
        ("collector", {"subscribe": "tetra.events.>"}),
        ("collector", {"subscribe": "_INBOX.gateway.>"}),
        ("collector", {"subscribe": ">"}),
        ("collector", {"publish": "anything.else"}),
        ("collector", {"publish": "$JS.API.STREAM.PURGE.TETRA_EVENTS"}),
        ("collector", {"publish": "$JS.API.STREAM.DELETE.TETRA_EVENTS"}),
        ("collector", {"publish": "$JS.API.STREAM.UPDATE.TETRA_EVENTS"}),
        ("collector", {"publish": "$JS.API.STREAM.MSG.DELETE.TETRA_EVENTS"}),
        ("collector", {"publish": "$JS.API.CONSUMER.CREATE.TETRA_EVENTS"}),
        ("gateway", {"publish": "tetra.events.one"}),
        ("gateway", {"subscribe": "_INBOX.collector.>"}),
        ("gateway", {"subscribe": ">"}),
        ("gateway", {"publish": "$JS.API.STREAM.PURGE.TETRA_EVENTS"}),
        ("gateway", {"publish": "$JS.API.STREAM.DELETE.TETRA_EVENTS"}),
        ("gateway", {"publish": "$JS.API.STREAM.MSG.DELETE.TETRA_EVENTS"}),
        ("gateway", {"publish": "$JS.API.STREAM.CREATE.OTHER"}),
        ("gateway", {"publish": "$SYS.REQ.SERVER.PING"}),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, *value.items())),
)
async def test_nobody_does_more(server, user, action):
    assert await is_refused(server, user, **action)


@pytest.mark.parametrize(
    ("name", "password"), [("collector", "wrong"), ("nobody", ""), ("gateway", "")]
)
async def test_nobody_gets_in_without_the_password(server, name, password):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.rpartition(":")[2]))
    try:
        assert (await reader.readline()).startswith(b"INFO ")
        login = json.dumps({"user": name, "pass": password, "verbose": False})
        writer.write(f"CONNECT {login}\r\nPING\r\n".encode())
        assert (await reader.readline()).strip() == b"-ERR 'Authorization Violation'"
    finally:
        writer.close()
        await writer.wait_closed()
