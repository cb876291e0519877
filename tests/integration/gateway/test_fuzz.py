"""Requests made up from the schema, and bytes that are none: right codes, no crash, no growth."""

import asyncio
import gc
import os
import random
from typing import Any

import grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.settings import Settings
from support.gateways import running
from support.waiting import eventually
from tetra.v1 import stream_pb2
from tetragon import events_pb2

METHODS = (
    "/tetragon.FineGuidanceSensors/GetEvents",
    "/tetragon.FineGuidanceSensors/GetHealth",
    "/tetragon.FineGuidanceSensors/GetInfo",
    "/tetragon.FineGuidanceSensors/GetDebug",
    "/tetra.v1.EventStream/StreamEvents",
    "/tetra.v1.EventStream/ListNodes",
)
EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.CANCELLED,  # by us: the stream was taken as valid
    grpc.StatusCode.DEADLINE_EXCEEDED,
}

NUMBERS = {
    "TYPE_INT32": st.integers(-(2**31), 2**31 - 1),
    "TYPE_INT64": st.integers(-(2**63), 2**63 - 1),
    "TYPE_UINT32": st.integers(0, 2**32 - 1),
    "TYPE_UINT64": st.integers(0, 2**64 - 1),
    "TYPE_BOOL": st.booleans(),
    "TYPE_STRING": st.text(max_size=20)
    | st.sampled_from(["(", "(?=x)", ".*", "a{2000}", "x" * 5000, "process.pid", "a=b", "!x,",
                       "process_exec.process.pid == 1u", "\u202e", "a..b"]),
    "TYPE_BYTES": st.binary(max_size=20),
}  # fmt: skip
KINDS = {getattr(events_pb2.Filter.DESCRIPTOR.fields[0], name): name for name in NUMBERS}


@st.composite
def message(draw, kind, depth=0):
    """Return a message of ``kind`` with some of its fields set to anything."""
    made = kind()
    for field in kind.DESCRIPTOR.fields:
        if draw(st.integers(0, 3)):
            continue
        value = draw(value_of(field, depth))
        if value is None:
            continue
        if field.is_repeated and not (
            field.message_type and field.message_type.GetOptions().map_entry
        ):
            if field.message_type:
                getattr(made, field.name).add().CopyFrom(value)
            else:
                getattr(made, field.name).append(value)
        elif field.message_type and not field.message_type.GetOptions().map_entry:
            getattr(made, field.name).CopyFrom(value)
        elif not field.message_type:
            setattr(made, field.name, value)
    return made


def value_of(field, depth):
    if field.message_type:
        if depth > 3 or field.message_type.GetOptions().map_entry:
            return st.none()
        return message(field.message_type._concrete_class, depth + 1)
    if field.enum_type:
        return st.integers(-1, 60000)
    return NUMBERS[KINDS[field.type]]


REQUEST = (
    message(events_pb2.GetEventsRequest).map(lambda m: (METHODS[0], m.SerializeToString()))
    | message(stream_pb2.StreamEventsRequest).map(lambda m: (METHODS[4], m.SerializeToString()))
    | st.tuples(st.sampled_from(METHODS), st.binary(max_size=200))
)


async def ask(channel, method, request):
    """Send the bytes; return the status code, ending a stream that was accepted."""
    call = channel.unary_stream(method)(request, timeout=20)
    first = asyncio.ensure_future(call.read())
    headers = asyncio.ensure_future(call.initial_metadata())
    await asyncio.wait({first, headers}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    await asyncio.wait({first}, timeout=0.02)
    call.cancel()
    for task in (first, headers):
        task.cancel()
    await asyncio.gather(first, headers, return_exceptions=True)
    return await call.code()


async def test_any_request_is_answered_with_a_sensible_code(nats_server):
    """One gateway for all examples, so that what one leaves behind would meet the next."""
    requests: list[tuple[str, bytes]] = []

    @settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "400")), deadline=None,
              suppress_health_check=list(HealthCheck), database=None)  # fmt: skip
    @given(REQUEST)
    def collect(request):
        requests.append(request)

    await asyncio.to_thread(collect)
    address: dict[str, Any] = {"nats_url": nats_server.url, "listen_address": "127.0.0.1:0"}
    async with running(Settings(**address)) as gateway:
        codes: dict[Any, int] = {}
        for method, request in requests:
            code = await ask(gateway.channel, method, request)
            assert code in EXPECTED, (method, request, code)
            codes[code] = codes.get(code, 0) + 1
        assert codes.get(grpc.StatusCode.INVALID_ARGUMENT, 0) > 10, codes
        assert codes.get(grpc.StatusCode.CANCELLED, 0) > 10, codes
        await eventually(lambda: len(gateway.gateway.streams) == 0)
        gc.collect()
        tasks = len(asyncio.all_tasks())
        for method, request in random.Random(1).choices(requests, k=100):
            await ask(gateway.channel, method, request)
        await eventually(lambda: len(gateway.gateway.streams) == 0)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks + 1)  # and the one that looks


async def test_requests_that_are_too_large_or_too_expensive_are_refused(gateway):
    huge = events_pb2.GetEventsRequest()
    huge.allow_list.add().binary_regex.append("x" * (10 << 20))
    assert await ask(gateway.channel, METHODS[0], huge.SerializeToString()) in (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    )
    expensive = events_pb2.GetEventsRequest()
    expensive.allow_list.add().binary_regex.append("((a{100}){100}){100}")
    assert await ask(gateway.channel, METHODS[0], expensive.SerializeToString()) == (
        grpc.StatusCode.INVALID_ARGUMENT
    )
    not_utf8 = b"\x0a\x04\x0a\x02\xff\xfe"
    assert await ask(gateway.channel, METHODS[0], not_utf8) == grpc.StatusCode.INVALID_ARGUMENT
