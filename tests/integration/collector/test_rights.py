"""The shipped NATS scripts on a real server: each user can do its work and nothing else."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import nats
import pytest
from nats.errors import Error

from bus import control, subjects
from bus.policies import Key, status_subject
from gateway.main import Gateway
from gateway.policies import forget
from gateway.settings import Settings
from support.feeder import BOOT_ID, Feeder, exec_event
from support.fleet import document, fleet
from support.nats_server import NATS_SERVER
from support.net import free_port
from support.waiting import eventually
from tetra.v1 import bus_pb2, policies_pb2, policies_pb2_grpc

SHIPPED = Path(__file__).parents[3] / "deploy/nats"
LOCAL = "bus.example"  # the node of the collector beside NATS
FURTHER = "web1"


@dataclass
class Server:
    """NATS as the container starts it, with folders and ports of this test's own."""

    url: str
    scripts: Path
    passwords: Path
    environment: dict[str, str]

    def script(self, name: str, *arguments: str) -> str:
        """Run a shipped script to its end; return what it printed."""
        done = subprocess.run(
            [self.scripts / name, *arguments], env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def password(self, user: str) -> str:
        """Return a user's password, from its file."""
        return (self.passwords / user / "nats-password").read_text()


@pytest.fixture
async def server(tmp_path):
    port = free_port()
    scripts, passwords = tmp_path / "scripts", tmp_path / "passwords"
    shutil.copytree(SHIPPED, scripts)
    config = scripts / "nats-server.conf"
    text = config.read_text()
    assert text.count("store_dir: /data\n") == 1
    for ours, here in (("4222", port), ("8222", free_port())):
        assert text.count(ours) == 1
        text = text.replace(ours, str(here))
    config.write_text(text)
    environment = {
        "PATH": f"{NATS_SERVER.parent}:{os.environ['PATH']}", "NODE_NAME": LOCAL,
        "TETRA_PASSWORDS_DIR": str(passwords), "TETRA_NATS_RUN_DIR": str(tmp_path / "run"),
        "TETRA_NATS_DATA_DIR": str(tmp_path),
    }  # fmt: skip
    log = tmp_path / "nats.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            scripts / "start", env=environment, stderr=errors
        )

    async def accepts():
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True

    await eventually(accepts)
    running = Server(f"nats://127.0.0.1:{port}", scripts, passwords, environment)
    running.script("collector", FURTHER)
    # A subscription that is made while NATS reads its users again can be lost.
    await eventually(lambda: "Reloaded server configuration" in log.read_text(), 30)
    await eventually(lambda: can_connect(running, f"collector-{FURTHER}"))
    yield running
    process.send_signal(signal.SIGTERM)
    await process.wait()


@pytest.fixture
async def gateway(server):
    """A gateway with its own rights: it makes the stream."""
    settings: dict[str, Any] = {
        "nats_url": server.url, "nats_user": "gateway", "listen_address": "127.0.0.1:0",
        "nats_password_file": server.passwords / "gateway/nats-password",
        "read_without_clients": True,
    }  # fmt: skip
    running = Gateway(Settings(**settings))
    task = asyncio.create_task(running.run())
    await eventually(lambda: running.subscriber.live)
    yield running
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def user_of(server, name):
    """Connect as a user; yield the connection and the errors that the server sends it."""
    refused = []

    async def note(error):
        refused.append(str(error).lower())

    nc = await nats.connect(
        server.url, user=name, password=server.password(name), error_cb=note,
        inbox_prefix=f"_INBOX.{subjects.escape(name)}", allow_reconnect=False, connect_timeout=5,
    )  # fmt: skip
    try:
        yield nc, refused
    finally:
        await nc.close()


async def can_connect(server, name):
    """Return whether NATS knows the user."""
    with suppress(Error, OSError):
        async with user_of(server, name):
            return True


async def is_refused(nc, refused, *, publish="", subscribe="", body=b""):
    """Return whether the server forbids it."""
    before = len(refused)
    if publish:
        await nc.publish(publish, body)
    if subscribe:
        await nc.subscribe(subscribe)
    with suppress(Error):
        await nc.flush()
    await asyncio.sleep(0)
    await nc.flush()
    return any("permissions violation" in text for text in refused[before:])


@pytest.mark.parametrize(
    ("user", "node"), [("collector", LOCAL), (f"collector-{FURTHER}", FURTHER)]
)
async def test_collector_can_do_its_work(server, gateway, user, node):
    async with user_of(server, user) as (nc, refused):
        feeder = Feeder(nc, node)
        await feeder.publish(20)
        await feeder.answer()
        nodes = await gateway.fleet.describe()
        assert [n.node_name for n in nodes if n.alive] == [node]
        await eventually(lambda: gateway.streams.broadcaster.statistics().events_total == 20)
        last = await feeder.js.get_last_msg(
            subjects.EVENTS_STREAM, subjects.events_subject(node), direct=True
        )
        assert bus_pb2.EventBatch.FromString(last.data or b"").boot_id == BOOT_ID
        assert refused == []


async def test_second_collector_of_a_name_is_noticed(server):
    answers = []
    async with (
        user_of(server, f"collector-{FURTHER}") as (first, _),
        user_of(server, f"collector-{FURTHER}") as (second, refused),
    ):

        def receive(node, _):
            answers.append(node)
            return True

        await control.ask(second, FURTHER, b"", receive, 30)  # ends at once: nothing listens
        assert answers == []
        await Feeder(first, FURTHER).answer()
        async with asyncio.timeout(60):
            while not answers:  # a subscription that is new may not be known for a moment
                await control.ask(second, FURTHER, b"", receive, 30)
        assert answers == [FURTHER]
        assert refused == []


async def test_answer_of_a_collector_about_another_node_is_ignored(server, gateway):
    async with user_of(server, f"collector-{FURTHER}") as (nc, refused):
        feeder = Feeder(nc, FURTHER)
        await feeder.publish(3)
        forged = feeder.batch([exec_event(7, node="web2")])
        forged.node_name = "web2"
        await feeder.send(forged, identified=False)
        mixed = [exec_event(8, node=FURTHER), exec_event(9, node="web2")]
        await feeder.send(feeder.batch(mixed), identified=False)
        await eventually(lambda: gateway.streams.malformed == {"message": 1, "event": 1})
        assert refused == []
        assert [node.node_name for node in gateway.fleet.nodes()] == [FURTHER]
        assert gateway.streams.broadcaster.statistics().events_total == 5


async def test_answer_in_the_name_of_another_node_is_ignored(server, gateway):
    async with user_of(server, f"collector-{FURTHER}") as (nc, _):
        feeder = Feeder(nc, FURTHER)
        await feeder.answer()
        assert [n.node_name for n in await gateway.fleet.describe()] == [FURTHER]
        feeder.claimed_node = "web2"
        await gateway.fleet.describe()
        assert [n.node_name for n in gateway.fleet.nodes()] == [FURTHER]


async def test_message_of_the_stream_sent_on_by_jetstream_is_left_out(server, gateway):
    """JetStream answers a read on any subject that the reader names, without asking its rights."""
    async with user_of(server, f"collector-{FURTHER}") as (nc, refused):
        feeder = Feeder(nc, FURTHER)
        forged = feeder.batch([exec_event(7, node="web2")])
        forged.node_name = "web2"
        await feeder.send(forged, identified=False)
        read = "$JS.API.DIRECT.GET.TETRA_EVENTS." + subjects.events_subject(FURTHER)
        await nc.publish(read, b"", reply=subjects.events_subject("web2"))
        await eventually(lambda: gateway.streams.malformed == {"message": 2, "event": 0})
        assert refused == []
    batches = (await gateway.streams.history.fetch(1)).batches
    assert [batch.node_name for batch in batches] == ["", ""]


async def test_request_to_itself_opens_no_other_subject(server):
    async with user_of(server, f"collector-{FURTHER}") as (nc, refused):
        received = asyncio.Event()

        async def receive(_):
            received.set()

        await nc.subscribe(subjects.control_subject(FURTHER), cb=receive)
        await nc.flush()
        elsewhere = subjects.control_subject("web2")
        await nc.publish(subjects.control_subject(FURTHER), b"", reply=elsewhere)
        await asyncio.wait_for(received.wait(), 30)
        assert await is_refused(nc, refused, publish=elsewhere)


@pytest.fixture
async def policies(gateway):
    """Stubs of the gateway; its policies can be changed."""
    await eventually(lambda: gateway.policies.store.complete, 30)
    async with grpc.aio.insecure_channel(gateway.server.address) as channel:
        yield policies_pb2_grpc.PoliciesStub(channel)


@pytest.fixture
async def nodes(server, gateway, tmp_path):
    """Both hosts, as the users that they have."""
    async with fleet(server.url, tmp_path / "nodes") as found:
        for user, name in (("collector", LOCAL), (f"collector-{FURTHER}", FURTHER)):
            login = {"nats_user": user, "nats_password": server.password(user)}
            found.start(name, user=login)

        async def all_known():
            nodes = await gateway.fleet.describe()
            return {node.node_name for node in nodes if node.alive} == {LOCAL, FURTHER}

        await eventually(all_known, 30)
        yield found


async def test_policies_of_the_fleet_work_with_the_rights_of_the_users(policies, nodes):
    change = await policies.AddPolicy(policies_pb2.AddPolicyRequest(yaml=document()))
    assert change.error == ""
    assert all(node.active() for node in nodes.nodes.values())
    ref = policies_pb2.PolicyRef(name="one")
    history = policies_pb2.GetPolicyHistoryRequest(policy=ref)
    assert len((await policies.GetPolicyHistory(history)).revisions) == 1
    audit = policies.StreamAudit(policies_pb2.StreamAuditRequest())
    assert len([entry async for entry in audit]) == 2
    call = policies.TryPolicy(policies_pb2.TryPolicyRequest(yaml=document("two")))
    assert len((await call.read()).nodes) == 2
    call.cancel()
    change = await policies.DeletePolicy(policies_pb2.DeletePolicyRequest(policy=ref))
    assert change.error == ""


async def test_policy_that_a_collector_made_jetstream_overwrite_is_repaired(
    server, gateway, policies, nodes
):
    """JetStream answers a read on any subject that the reader names, without asking its rights."""
    await policies.AddPolicy(policies_pb2.AddPolicyRequest(yaml=document()))
    key = Key("one")
    async with user_of(server, f"collector-{FURTHER}") as (nc, _):
        forged = policies_pb2.StoredPolicy(policy=policies_pb2.PolicyRef(name="one", domain="grpc"))
        forged.current.revision, forged.current.deleted = 99, True
        await nc.jetstream().publish(subjects.events_subject(FURTHER), forged.SerializeToString())
        read = "$JS.API.DIRECT.GET.TETRA_EVENTS." + subjects.events_subject(FURTHER)
        before = gateway.policies.store.get(key).sequence
        await nc.publish(read, b"", reply=key.subject)
        await nc.flush()

        def repaired():
            stored = gateway.policies.store.get(key)
            return stored.sequence >= before + 2 and not stored.damaged and stored

        stored = await eventually(repaired, 30)
    assert stored.policy.current.revision == 1
    assert all(node.active() for node in nodes.nodes.values())


async def test_message_that_ends_a_policy_is_not_copied_over_another(
    server, gateway, policies, nodes, monkeypatch
):
    """It takes the place of all messages of its subject, so of the other's history, too."""
    await policies.AddPolicy(policies_pb2.AddPolicyRequest(yaml=document("gone")))
    ref = policies_pb2.PolicyRef(name="gone")
    await policies.DeletePolicy(policies_pb2.DeletePolicyRequest(policy=ref))
    monkeypatch.setattr(forget, "KEEP_S", 0.0)
    await eventually(lambda: gateway.policies.store.get(Key("gone")).expires, 30)
    for call in ("fd_install", "vfs_read"):
        request = policies_pb2.AddPolicyRequest(yaml=document(call=call), replace=True)
        assert (await policies.AddPolicy(request)).error == ""
    key = Key("one")
    async with user_of(server, f"collector-{FURTHER}") as (nc, _):
        read = json.dumps({"last_by_subj": Key("gone").subject}).encode()
        for _ in range(3):
            await nc.publish("$JS.API.DIRECT.GET.KV_TETRA_POLICIES", read, reply=key.subject)
        await nc.flush()
        # A message that is copied is the proof that those before it were tried.
        await nc.jetstream().publish(subjects.events_subject(FURTHER), b"any")
        read = "$JS.API.DIRECT.GET.TETRA_EVENTS." + subjects.events_subject(FURTHER)
        before = gateway.policies.store.get(key).sequence
        await nc.publish(read, b"", reply=key.subject)
        await eventually(lambda: gateway.policies.store.get(key).sequence >= before + 2, 30)
    history = policies_pb2.GetPolicyHistoryRequest(policy=policies_pb2.PolicyRef(name="one"))
    found = (await policies.GetPolicyHistory(history)).revisions
    assert [one.revision for one in found] == [2, 1]


async def test_status_in_the_name_of_another_node_is_ignored(server, gateway, policies, nodes):
    await policies.AddPolicy(policies_pb2.AddPolicyRequest(yaml=document()))
    forged = policies_pb2.NodePolicies(node_name=LOCAL, version=1000)
    async with user_of(server, f"collector-{FURTHER}") as (nc, refused):
        await nc.publish(f"tetra.policies.{FURTHER}", forged.SerializeToString())
        # And as JetStream sends a message of the stream to another subject.
        await nc.jetstream().publish(subjects.events_subject(FURTHER), forged.SerializeToString())
        read = "$JS.API.DIRECT.GET.TETRA_EVENTS." + subjects.events_subject(FURTHER)
        await nc.publish(read, b"", reply=status_subject(LOCAL))
        await nc.flush()
        assert refused == []
    await policies.ListPolicies(policies_pb2.ListPoliciesRequest())
    assert gateway.policies.nodes.status(LOCAL, Key("one")).revision == 1


async def test_request_that_jetstream_was_made_to_send_is_not_carried_out(server, gateway, nodes):
    """JetStream answers a read on any subject that the reader names, without asking its rights."""
    forged = bus_pb2.ControlRequest(set_log_level="debug").SerializeToString()
    arrived = asyncio.Event()

    async def receive(message):
        if message.data == forged:
            arrived.set()

    async with (
        user_of(server, "operator") as (operator, _),
        user_of(server, f"collector-{FURTHER}") as (nc, refused),
    ):
        for subject in (subjects.control_subject(LOCAL), subjects.CONTROL_ALL):
            arrived.clear()
            listening = await operator.subscribe(subject, cb=receive)
            await operator.flush()
            await nc.jetstream().publish(subjects.events_subject(FURTHER), forged)
            read = "$JS.API.DIRECT.GET.TETRA_EVENTS." + subjects.events_subject(FURTHER)
            await nc.publish(read, b"", reply=subject)
            async with asyncio.timeout(30):
                await arrived.wait()
            await listening.unsubscribe()
        assert refused == []
    known = await gateway.fleet.describe()  # each answers after what it received before
    assert {info.node_name for info in known if info.alive} == {LOCAL, FURTHER}
    assert not {info.log_level for info in known} & {"debug"}


FORBIDDEN = {
    f"collector-{FURTHER}": (
        {"publish": "tetra.events.web2"},
        {"publish": "tetra.control"},
        {"publish": "tetra.control.web2"},
        {"publish": "tetra.answers.token.web2"},
        {"publish": "tetra.answers.token.="},
        {"publish": "tetra.answers.token"},
        {"publish": "_INBOX.gateway.token"},
        {"publish": "$JS.API.DIRECT.GET.TETRA_EVENTS.tetra.events.web2"},
        {"publish": "$JS.API.DIRECT.GET.TETRA_EVENTS", "body": b'{"seq":1}'},
        {"publish": "$JS.API.STREAM.MSG.GET.TETRA_EVENTS", "body": b'{"seq":1}'},
        {"publish": "$JS.API.STREAM.INFO.TETRA_EVENTS"},
        {"publish": "$JS.API.STREAM.PURGE.TETRA_EVENTS"},
        {"publish": "$JS.API.STREAM.DELETE.TETRA_EVENTS"},
        {"publish": "$JS.API.STREAM.UPDATE.TETRA_EVENTS"},
        {"publish": "$JS.API.STREAM.MSG.DELETE.TETRA_EVENTS"},
        {"publish": "$JS.API.CONSUMER.CREATE.TETRA_EVENTS"},
        {"publish": "$JS.API.CONSUMER.CREATE.KV_TETRA_POLICIES"},
        {"publish": "$JS.API.STREAM.MSG.GET.KV_TETRA_POLICIES", "body": b'{"seq":1}'},
        {"publish": "$JS.API.STREAM.PURGE.KV_TETRA_POLICIES"},
        {"publish": "$JS.API.STREAM.DELETE.KV_TETRA_POLICIES"},
        {"publish": "$KV.TETRA_POLICIES.grpc.=.one"},
        {"publish": "tetra.policies.web2"},
        {"publish": "tetra.audit"},
        {"publish": "$JS.API.DIRECT.GET.TETRA_AUDIT", "body": b'{"seq":1}'},
        {"subscribe": "tetra.policies.>"},
        {"subscribe": "tetra.policies.web2"},
        {"subscribe": "tetra.audit"},
        {"publish": "anything.else"},
        {"subscribe": ">"},
        {"subscribe": "tetra.events.>"},
        {"subscribe": "tetra.events.web1"},
        {"subscribe": "tetra.control.web2"},
        {"subscribe": "tetra.control.*"},
        {"subscribe": "tetra.answers.>"},
        {"subscribe": "tetra.answers.*.>"},
        {"subscribe": "tetra.answers.*.*"},
        {"subscribe": "tetra.answers.*.web2"},
        {"subscribe": "_INBOX.>"},
        {"subscribe": "_INBOX.gateway.>"},
        {"subscribe": "_INBOX.collector.>"},
        {"subscribe": "_INBOX.collector-web2.>"},
    ),
    "collector": (
        {"publish": "tetra.events.web1"},
        {"publish": "tetra.control.web1"},
        {"subscribe": "_INBOX.collector-web1.>"},
        {"publish": "$JS.API.DIRECT.GET.TETRA_EVENTS.tetra.events.web1"},
    ),
    "gateway": (
        {"publish": "tetra.events.web1"},
        {"publish": "tetra.answers.token.web1"},
        {"subscribe": "tetra.events.>"},
        {"subscribe": "tetra.control"},
        {"subscribe": "_INBOX.collector.>"},
        {"subscribe": ">"},
        {"publish": "$JS.API.STREAM.PURGE.TETRA_EVENTS"},
        {"publish": "$JS.API.STREAM.DELETE.TETRA_EVENTS"},
        {"publish": "$JS.API.STREAM.MSG.DELETE.TETRA_EVENTS"},
        {"publish": "$JS.API.STREAM.PURGE.KV_TETRA_POLICIES"},
        {"publish": "$JS.API.STREAM.DELETE.KV_TETRA_POLICIES"},
        {"publish": "$JS.API.STREAM.PURGE.TETRA_AUDIT"},
        {"publish": "$JS.API.STREAM.DELETE.TETRA_AUDIT"},
        {"publish": "tetra.policies.web1"},
        {"publish": "$JS.API.STREAM.CREATE.OTHER"},
        {"publish": "$SYS.REQ.SERVER.PING"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("user", FORBIDDEN)
async def test_user_can_do_nothing_else(server, user):
    async with user_of(server, user) as (nc, refused):
        allowed = [
            action for action in FORBIDDEN[user] if not await is_refused(nc, refused, **action)
        ]
    assert allowed == []


FORBIDDEN_ON_KUBERNETES = (
    {"publish": "tetra.control"},
    {"publish": "tetra.audit"},
    {"publish": "$KV.TETRA_POLICIES.grpc.=.one"},
    {"publish": "_INBOX.gateway.token"},
    {"publish": "$JS.API.DIRECT.GET.TETRA_EVENTS", "body": b'{"seq":1}'},
    {"publish": "$JS.API.STREAM.UPDATE.TETRA_EVENTS"},
    {"publish": "$JS.API.STREAM.PURGE.TETRA_EVENTS"},
    {"publish": "$JS.API.STREAM.DELETE.TETRA_EVENTS"},
    {"publish": "$JS.API.STREAM.MSG.DELETE.TETRA_EVENTS"},
    {"publish": "$JS.API.CONSUMER.CREATE.TETRA_EVENTS"},
    {"subscribe": ">"},
    {"subscribe": "tetra.events.*"},
    {"subscribe": "_INBOX.>"},
    {"subscribe": "_INBOX.gateway.>"},
)


async def test_one_user_of_all_collectors_can_do_nothing_else(server):
    """The chart writes ``*`` as the node of the one user that its collectors share."""
    (server.passwords / "collector/node").write_text("*")
    server.script("collector", "reloaded")
    await eventually(lambda: can_connect(server, "collector-reloaded"))
    async with user_of(server, "collector") as (nc, refused):
        allowed = [
            one for one in FORBIDDEN_ON_KUBERNETES if not await is_refused(nc, refused, **one)
        ]
        assert allowed == []
        assert not await is_refused(nc, refused, publish="tetra.events.web2")


async def test_a_host_is_added_and_removed_while_nats_runs(server, gateway):
    printed = server.script("collector", "db 1.example", 'chosen"word')
    assert printed.splitlines() == [
        "NODE_NAME=db 1.example",
        "TETRA_NATS_USER=collector-db 1.example",
        'TETRA_NATS_PASSWORD=chosen"word',
    ]
    name = "collector-db 1.example"
    async with user_of(server, f"collector-{FURTHER}") as (kept, _):
        await eventually(lambda: can_connect(server, name))
        async with user_of(server, name) as (nc, refused):
            await Feeder(nc, "db 1.example").publish(2)
            assert refused == []
        server.script("collector", "--remove", "db 1.example")
        assert not (server.passwords / name).exists()
        await kept.flush()
        assert kept.is_connected  # a change of the users leaves the others' connections alone
    assert gateway.subscriber.live


def test_passwords_are_created_once_in_one_file_each(server):
    before = {user: server.password(user) for user in ("collector", "gateway", "operator")}
    assert len(set(before.values())) == 3
    assert all(len(password) == 32 for password in before.values())
    once = server.script("collector", FURTHER)
    assert server.script("collector", FURTHER) == once
    modes = {
        user: (server.passwords / user / "nats-password").stat().st_mode & 0o777
        for user in (*before, f"collector-{FURTHER}")
    }
    assert modes.pop("gateway") == 0o444  # it runs as another user
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize(
    ("name", "password"), [("collector", "wrong"), ("unknown", ""), ("gateway", "")]
)
async def test_connection_without_the_password_is_refused(server, name, password):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    try:
        assert (await reader.readline()).startswith(b"INFO ")
        login = json.dumps({"user": name, "pass": password, "verbose": False})
        writer.write(f"CONNECT {login}\r\nPING\r\n".encode())
        assert (await reader.readline()).strip() == b"-ERR 'Authorization Violation'"
    finally:
        writer.close()
        await writer.wait_closed()
