"""Certificates, tokens and their rights, on a real gateway."""

import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from nats.js.errors import NotFoundError

from chassis import logging
from chassis.errors import ServiceError, TokenFileError
from gateway import rights
from gateway.main import Gateway
from gateway.settings import Settings
from support.feeder import Feeder, exec_event
from support.gateways import read_numbers
from support.waiting import eventually
from tetra.v1 import plans_pb2, policies_pb2, policies_pb2_grpc, stream_pb2, stream_pb2_grpc
from tetragon import (
    eventlogservice_pb2,
    events_pb2,
    sensors_pb2,
    sensors_pb2_grpc,
    tetragon_pb2,
)

MAKE = Path(__file__).parents[3] / "deploy/tls/make"
TOKENS = """
# token rights nodes
all read,control
looker read
one read n1      # of one node
tuner control
tuner1 control,read n1
editor policies
"""


def make_certificates(folder, *names):
    """Make certificates as docs/deploy.md does; return their folders."""
    shutil.copy(MAKE, folder)
    for name in names:
        subprocess.run([folder / "make", name, "127.0.0.1"], check=True, capture_output=True)
    return [folder / name for name in names]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"), "localhost", "client")


@pytest.fixture
def tokens(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(TOKENS)
    return file


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


async def code_of(call):
    """Return the status code that a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


VERSION = sensors_pb2.GetVersionRequest()
LEVEL = sensors_pb2.SetDebugRequest(
    flag=sensors_pb2.CONFIG_FLAG_LOG_LEVEL, level=sensors_pb2.LOG_LEVEL_INFO
)


@pytest.mark.parametrize(
    ("metadata", "code", "text"),
    [
        ((), grpc.StatusCode.UNAUTHENTICATED, "bearer token is needed"),
        (bearer("wrong"), grpc.StatusCode.UNAUTHENTICATED, "not known"),
        ((("authorization", "Basic looker"),), grpc.StatusCode.UNAUTHENTICATED, "not known"),
        (bearer("tuner"), grpc.StatusCode.PERMISSION_DENIED, "'read'"),
        (bearer("looker"), grpc.StatusCode.OK, ""),
        (bearer("all"), grpc.StatusCode.OK, ""),
    ],
)
async def test_reading_needs_the_right_to_read(start_gateway, tokens, metadata, code, text):
    gateway = await start_gateway(token_file=tokens)
    got, details = await code_of(gateway.sensors.GetVersion(VERSION, metadata=metadata))
    assert got == code
    assert text in details
    for stub, request in (
        (gateway.sensors.GetEvents, events_pb2.GetEventsRequest()),
        (gateway.events.StreamEvents, stream_pb2.StreamEventsRequest()),
    ):
        call = stub(request, metadata=metadata)
        if code == grpc.StatusCode.OK:
            await call.initial_metadata()
            call.cancel()
        else:
            assert await call.code() == code


@pytest.mark.parametrize(("token", "may"), [("looker", False), ("tuner", True), ("all", True)])
async def test_changing_something_needs_the_right_to_control(start_gateway, tokens, token, may):
    gateway = await start_gateway(token_file=tokens)
    got, _ = await code_of(gateway.sensors.SetDebug(LEVEL, metadata=bearer(token)))
    assert got == (grpc.StatusCode.OK if may else grpc.StatusCode.PERMISSION_DENIED)


async def test_a_token_of_one_node_shows_nothing_of_others(start_gateway, nc, tokens):
    gateway = await start_gateway(token_file=tokens)
    mine, other = Feeder(nc, "n1"), Feeder(nc, "n2")
    mine.alive = other.alive = []
    await mine.answer()
    await other.answer()
    old = gateway.sensors.GetEvents(events_pb2.GetEventsRequest(), metadata=bearer("one"))
    own = gateway.events.StreamEvents(stream_pb2.StreamEventsRequest(), metadata=bearer("one"))
    await old.initial_metadata()
    await own.read()
    await other.publish(20)
    numbers = await mine.publish(20)
    for call in (old, own):
        seen = await read_numbers(call, 20)
        assert seen == numbers
    nodes = await gateway.events.ListNodes(stream_pb2.ListNodesRequest(), metadata=bearer("one"))
    assert [node.node_name for node in nodes.nodes] == ["n1"]
    asked = stream_pb2.StreamEventsRequest(nodes=["n2"])
    call = gateway.events.StreamEvents(asked, metadata=bearer("one"))
    assert await call.code() == grpc.StatusCode.PERMISSION_DENIED
    assert await call.details() == "node n2: the token does not grant it"
    asked = sensors_pb2.GetDebugRequest(flag=sensors_pb2.CONFIG_FLAG_LOG_LEVEL)
    got, _ = await code_of(
        gateway.sensors.GetDebug(asked, metadata=(*bearer("one"), ("tetra-node", "n2")))
    )
    assert got == grpc.StatusCode.PERMISSION_DENIED


def methods_of(*modules):
    """Yield each method of the services that the modules describe, with its full name."""
    for module in modules:
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}", method


OURS = (sensors_pb2, eventlogservice_pb2, stream_pb2, policies_pb2, plans_pb2)


async def test_every_method_is_denied_without_the_right_that_it_needs(start_gateway, tokens):
    gateway = await start_gateway(token_file=tokens)
    holders = {"looker": {"read"}, "tuner": {"control"}, "editor": {"policies"}}
    for name, _ in methods_of(*OURS):
        for token, held in holders.items():
            call = gateway.channel.unary_unary(name)
            code, details = await code_of(call(b"", metadata=bearer(token), timeout=30))
            denied = code == grpc.StatusCode.PERMISSION_DENIED
            assert denied == (rights.NEEDED[name] not in held), (name, token, code, details)


@pytest.mark.parametrize(
    "method",
    [
        "/tetragon.FineGuidanceSensors/NewMethod",
        "/tetra.v1.EventStream/NewMethod",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ],
)
async def test_method_that_is_not_listed_is_denied(start_gateway, tokens, method):
    gateway = await start_gateway(token_file=tokens)
    call = gateway.channel.unary_unary(method)
    got, details = await code_of(call(b"", metadata=bearer("all")))
    assert got == grpc.StatusCode.PERMISSION_DENIED
    assert "is not granted" in details


async def test_no_method_shows_another_node_to_a_token_of_one_node(start_gateway, nc, tokens):
    gateway = await start_gateway(token_file=tokens)
    mine, other = Feeder(nc, "n1"), Feeder(nc, "hidden")
    for feeder in (mine, other):
        feeder.alive = [exec_event(7, node=feeder.node)]
        await feeder.answer()
        await feeder.publish(3)
    await gateway.gateway.fleet.describe()
    await other.be_silent()  # GetHealth names it once it counts as gone
    gateway.gateway.fleet._nodes["hidden"].heard_at = 0.0
    dump = sensors_pb2.GetDebugRequest(flag=sensors_pb2.CONFIG_FLAG_DUMP_PROCESS_CACHE)
    since = stream_pb2.StreamEventsRequest(last=100, no_follow=True)
    shown = stream_pb2.StreamEventsRequest(snapshot=True, no_follow=True)
    count = stream_pb2.CountEventsRequest(by=["node"])
    requests = {"GetDebug": [b"", dump.SerializeToString()],
                "CountEvents": [count.SerializeToString()],
                "StreamEvents": [since.SerializeToString(), shown.SerializeToString()]}  # fmt: skip
    received = b""
    for name, method in methods_of(*OURS):
        # These never end: filters as of StreamEvents; policies have a test of their own.
        if name.endswith(("/GetEvents", "/StreamPolicies", "/TryPolicy")):
            continue
        for request in requests.get(method.name, [b""]):
            if method.server_streaming:
                call = gateway.channel.unary_stream(name)(request, metadata=bearer("tuner1"))
                received += b"".join([response async for response in call])
                continue
            with suppress(grpc.aio.AioRpcError):
                call = gateway.channel.unary_unary(name)(request, metadata=bearer("tuner1"))
                received += await call
    assert b"n1" in received
    assert b"hidden" not in received


async def test_a_token_of_one_node_sets_and_reads_the_log_level_of_that_node(
    start_gateway, nc, tokens
):
    gateway = await start_gateway(token_file=tokens)
    mine, other = Feeder(nc, "n1"), Feeder(nc, "n2")
    other.log_level = "debug"
    await mine.answer()
    await other.answer()
    await gateway.gateway.fleet.describe()
    own = logging.get_level()
    level = sensors_pb2.LOG_LEVEL_WARN if own != "warning" else sensors_pb2.LOG_LEVEL_ERROR
    changed = sensors_pb2.SetDebugRequest(flag=sensors_pb2.CONFIG_FLAG_LOG_LEVEL, level=level)
    asked = sensors_pb2.GetDebugRequest(flag=sensors_pb2.CONFIG_FLAG_LOG_LEVEL)
    for metadata in (bearer("tuner1"), (*bearer("tuner1"), ("tetra-node", "n1"))):
        mine.log_level = "info"
        await gateway.sensors.SetDebug(changed, metadata=metadata)
        assert mine.log_level in ("warning", "error")
        assert other.log_level == "debug"
        assert logging.get_level() == own  # the gateway's own
        answer = await gateway.sensors.GetDebug(asked, metadata=metadata)
        assert answer.level == level
    code, details = await code_of(
        gateway.sensors.SetDebug(changed, metadata=(*bearer("tuner1"), ("tetra-node", "n2")))
    )
    assert (code, details) == (
        grpc.StatusCode.PERMISSION_DENIED, "node n2: the token does not grant it",
    )  # fmt: skip
    await mine.be_silent()
    code, details = await code_of(gateway.sensors.SetDebug(changed, metadata=bearer("tuner1")))
    assert (code, details) == (grpc.StatusCode.UNAVAILABLE, "node n1: no answer")


@pytest.mark.parametrize(
    ("replacement", "code", "text"),
    [
        ("", grpc.StatusCode.UNAUTHENTICATED, "the token was removed"),
        ("looker read n1", grpc.StatusCode.UNAVAILABLE, "the token was changed: connect again"),
    ],
)
async def test_streams_of_a_revoked_token_end_within_5_s(
    start_gateway, nc, tokens, replacement, code, text
):
    gateway = await start_gateway(token_file=tokens)
    feeder = Feeder(nc)
    policies = policies_pb2_grpc.PoliciesStub(gateway.channel)

    async def audit_is_there():
        with suppress(NotFoundError):
            return await feeder.js.stream_info("TETRA_AUDIT")

    await eventually(audit_is_there, 30)

    def open_streams(token):
        reflection = gateway.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )
        return [
            gateway.sensors.GetEvents(events_pb2.GetEventsRequest(), metadata=bearer(token)),
            gateway.events.StreamEvents(
                stream_pb2.StreamEventsRequest(), metadata=bearer(token)
            ),
            reflection(metadata=bearer(token)),
            policies.StreamPolicies(policies_pb2.ListPoliciesRequest(), metadata=bearer(token)),
            policies.StreamAudit(
                policies_pb2.StreamAuditRequest(follow=True), metadata=bearer(token)
            ),
        ]  # fmt: skip

    revoked, kept = open_streams("looker"), open_streams("all")
    for call in (*revoked[:2], *kept[:2]):
        await call.initial_metadata()
    tokens.write_text(TOKENS.replace("looker read", replacement))
    start = time.monotonic()
    for call in revoked:
        with suppress(grpc.aio.AioRpcError):  # the status comes behind what is not read yet
            while await call.read() is not grpc.aio.EOF:
                pass
        assert await call.code() == code
        assert await call.details() == f"authorization: {text}"
    assert time.monotonic() - start < 5
    numbers = await feeder.publish(3)
    assert await read_numbers(kept[0], 3) == numbers
    assert not any(call.done() for call in kept)
    for call in kept:
        call.cancel()


async def test_tokens_are_read_again_and_health_needs_none(start_gateway, tokens):
    gateway = await start_gateway(token_file=tokens)
    tokens.write_text("fresh read\n")

    async def accepts(token):
        got, _ = await code_of(gateway.sensors.GetVersion(VERSION, metadata=bearer(token)))
        return got == grpc.StatusCode.OK

    await eventually(lambda: accepts("fresh"))
    assert not await accepts("looker")
    tokens.write_text("broken\n")  # stays as it was
    assert await accepts("fresh")
    health = gateway.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert await health(b"")


async def test_tls_serves_clients_that_know_the_authority(start_gateway, nc, certificates):
    server, _ = certificates
    gateway = await start_gateway(
        tls_cert_file=server / "server.pem", tls_key_file=server / "server.key",
        listen_address="127.0.0.1:0",
    )  # fmt: skip
    trusted = grpc.ssl_channel_credentials((server / "ca.pem").read_bytes())
    async with grpc.aio.secure_channel(gateway.address, trusted) as channel:
        stub = sensors_pb2_grpc.FineGuidanceSensorsStub(channel)
        assert (await stub.GetVersion(VERSION)).version
        health = await stub.GetHealth(tetragon_pb2.GetHealthStatusRequest())
        assert health.health_status[0].status == tetragon_pb2.HEALTH_STATUS_RUNNING
    got, details = await code_of(gateway.sensors.GetVersion(VERSION))  # a plaintext client
    assert got == grpc.StatusCode.UNAVAILABLE
    assert details


async def test_mutual_tls_refuses_a_client_without_a_certificate(start_gateway, certificates):
    server, client = certificates
    gateway = await start_gateway(
        tls_cert_file=server / "server.pem", tls_key_file=server / "server.key",
        tls_client_ca_file=server / "ca.pem",
    )  # fmt: skip
    authority = (server / "ca.pem").read_bytes()
    pair = ((client / "server.key").read_bytes(), (client / "server.pem").read_bytes())
    for credentials, expected in (
        (grpc.ssl_channel_credentials(authority), grpc.StatusCode.UNAVAILABLE),
        (grpc.ssl_channel_credentials(authority, *pair), grpc.StatusCode.OK),
    ):
        async with grpc.aio.secure_channel(gateway.address, credentials) as channel:
            stub = stream_pb2_grpc.EventStreamStub(channel)
            got, _ = await code_of(stub.ListNodes(stream_pb2.ListNodesRequest(), timeout=30))
            assert got == expected


async def test_a_new_certificate_is_used_without_a_restart(start_gateway, tmp_path):
    old, new = make_certificates(tmp_path, "localhost", "new.example")
    gateway = await start_gateway(tls_cert_file=old / "server.pem", tls_key_file=old / "server.key")

    async def shown_name():
        authority = grpc.ssl_channel_credentials((old / "ca.pem").read_bytes())
        options = [("grpc.ssl_target_name_override", "new.example")]
        async with grpc.aio.secure_channel(gateway.address, authority, options) as channel:
            stub = sensors_pb2_grpc.FineGuidanceSensorsStub(channel)
            got, _ = await code_of(stub.GetVersion(VERSION, timeout=30))
            return got == grpc.StatusCode.OK

    assert not await shown_name()
    for name in ("server.key", "server.pem"):
        shutil.copy(new / name, old / name)
        os.utime(old / name, ns=(time.time_ns(), time.time_ns()))
    await eventually(shown_name)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"listen_address": "0.0.0.0:0"}, "other hosts can reach it"),
        ({"listen_address": "[::]:0"}, "other hosts can reach it"),
        ({"tls_cert_file": "/nowhere"}, "are both needed"),
        ({"tls_client_ca_file": "/nowhere"}, "are both needed"),
        ({"tls_cert_file": "/nowhere", "tls_key_file": "/x"}, "/nowhere: no such file"),
        ({"tls_cert_file": "/etc/hostname", "tls_key_file": "/etc/hostname"}, "is not PEM"),
        ({"token_file": "/nowhere"}, "tokens: /nowhere: No such file"),
    ],
)
async def test_settings_that_do_not_fit_are_refused_at_the_start(changes, text):
    with pytest.raises(ServiceError, match=text):
        gateway_with(**changes)


def gateway_with(**changes: Any) -> Gateway:
    """Make a gateway, which binds its address."""
    return Gateway(Settings(**{"listen_address": "127.0.0.1:0", **changes}))


async def test_insecure_listen_allows_an_open_address():
    gateway = gateway_with(listen_address="0.0.0.0:0", insecure_listen=True)
    assert gateway.server.address.startswith("0.0.0.0:")


@pytest.mark.parametrize("line", ["token", "token write", "token read n1 more", "token read,"])
async def test_a_bad_line_of_tokens_is_named_without_the_token(tokens, line):
    tokens.write_text(f"good read\n{line.replace('token', 's3cret')}\n")
    with pytest.raises(TokenFileError) as caught:
        gateway_with(token_file=tokens)
    assert "line 2: expected TOKEN RIGHT" in str(caught.value)
    assert "s3cret" not in str(caught.value)
