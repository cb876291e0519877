"""Expensive requests end with an error; the gateway keeps serving other clients."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from support.feeder import Feeder
from support.gateway_process import gateway_process, resident_bytes
from support.gateways import numbers_in
from support.waiting import eventually
from tetra.v1 import plans_pb2, policies_pb2, stream_pb2, stream_pb2_grpc
from tetragon import events_pb2, sensors_pb2, sensors_pb2_grpc, tetragon_pb2

RATE_EVENTS, BATCH_EVENTS = 600, 6
ATTACK_S = 4.0
ANSWER_S = 1.0
REFUSED_S = 60.0  # a refusal may take a busy machine long
ALLOWED = ("256 filters", "32 expressions")
GROWTH_BYTES = 64 << 20
TWENTY = str(list(range(20)))
LOOPS = f"{TWENTY}.all(a, {TWENTY}.all(b, {TWENTY}.all(c, {TWENTY}.all(d, a + b + c + d < 100))))"
NESTED = "(" * 25 + "process_exec.process.pid < uint({})" + ")" * 25  # CEL allows 32

Filter = events_pb2.Filter
ATTACKS = {
    "60,000 regexes": lambda: [Filter(binary_regex=[f"^/usr/bin/tool{n}$" for n in range(60_000)])],
    "300,000 filters": lambda: [Filter(pid=[n + 1_000_000]) for n in range(300_000)],
    "5,000 expressions": lambda: [
        Filter(cel_expression=[NESTED.format(n % 2) for n in range(5000)])
    ],
    "four loops": lambda: [Filter(cel_expression=[f"process_exec.process.pid == 0u || {LOOPS}"])],
    # As much as the limits allow.
    "256 filters": lambda: [
        Filter(binary_regex=[f"^/nowhere{n}/[^/]*x$"], arguments_regex=["y$"]) for n in range(256)
    ],
    "32 expressions": lambda: [
        Filter(cel_expression=[f"process_exec.process.pid == uint({n})" for n in range(32)])
    ],
}  # fmt: skip

pytestmark = pytest.mark.timeout(300)


async def publish_at_rate(feeder, done, published):
    start, sent = time.monotonic(), 0
    while not done.is_set():
        sent += len(await feeder.publish(BATCH_EVENTS, BATCH_EVENTS))
        published.append(BATCH_EVENTS)
        ahead_s = sent / RATE_EVENTS - (time.monotonic() - start)
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)


async def attack(address, request, done, timeout_s):
    """Send the request again and again until ``done``; return the statuses that ended it."""
    statuses = set()
    async with grpc.aio.insecure_channel(address) as channel:
        send = channel.unary_stream("/tetra.v1.EventStream/StreamEvents")  # bytes: made once
        while not done.is_set():
            try:
                async for _ in send(request, timeout=timeout_s):
                    pass
            except grpc.aio.AioRpcError as error:
                statuses.add(error.code())
            await asyncio.sleep(0.1)
    return statuses


async def slowest_answer_s(sensors, seconds):
    slowest, until = 0.0, time.monotonic() + seconds
    while time.monotonic() < until:
        start = time.monotonic()
        await sensors.GetHealth(tetragon_pb2.GetHealthStatusRequest(), timeout=60)
        slowest = max(slowest, time.monotonic() - start)
        await asyncio.sleep(0.05)
    return slowest


async def count_events(call, counts):
    async for response in call:
        counts.append(len(numbers_in(response)))


@pytest.mark.parametrize("name", ATTACKS)
async def test_others_are_served_under_attack(nats_server, nc, name, record_property):
    request = stream_pb2.StreamEventsRequest(
        allow_list=ATTACKS[name](), after=stream_pb2.Cursor()
    ).SerializeToString()
    done = asyncio.Event()
    async with (
        gateway_process(nats_server.url) as (address, pid),
        grpc.aio.insecure_channel(address) as channel,
    ):
        events = stream_pb2_grpc.EventStreamStub(channel)
        sensors = sensors_pb2_grpc.FineGuidanceSensorsStub(channel)

        async def is_live():
            with suppress(grpc.aio.AioRpcError):
                return (
                    await anext(aiter(events.StreamEvents(stream_pb2.StreamEventsRequest())))
                ).HasField("cursor")

        await eventually(is_live, 30, 0.2)
        feeder = Feeder(nc)
        await feeder.publish(2000, 20)
        counts: list[int] = []
        published: list[int] = []
        reader = asyncio.create_task(
            count_events(events.StreamEvents(stream_pb2.StreamEventsRequest()), counts)
        )
        publisher = asyncio.create_task(publish_at_rate(feeder, done, published))
        calm_s = await slowest_answer_s(sensors, 1.0)
        before_bytes = resident_bytes(pid)
        timeout_s = ATTACK_S if name in ALLOWED else REFUSED_S
        attacker = asyncio.create_task(attack(address, request, done, timeout_s))
        slowest_s = await slowest_answer_s(sensors, ATTACK_S)
        seen, sent = sum(counts), sum(published)
        grown = resident_bytes(pid) - before_bytes
        done.set()
        statuses = await attacker
        await publisher
        calm_s = max(calm_s, await slowest_answer_s(sensors, 1.0))
        reader.cancel()
    print(f"{name}: slowest answer {slowest_s:.2f} s, {grown >> 20} MiB more, {statuses}")
    assert slowest_s < max(ANSWER_S, 4 * calm_s)  # the machine itself may be slow
    assert seen > sent / 4
    assert grown < GROWTH_BYTES
    if name in ALLOWED:
        assert statuses <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    else:
        assert statuses == {grpc.StatusCode.RESOURCE_EXHAUSTED}


async def test_deadline_ends_a_stream_whose_filter_passes_nothing(gateway, feeder, monkeypatch):
    monkeypatch.setattr("eventfilters.limits.EVENT_S", 1.0)
    await feeder.publish(20_000, 500)
    request = stream_pb2.StreamEventsRequest(
        allow_list=ATTACKS["four loops"](), after=stream_pb2.Cursor()
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in gateway.events.StreamEvents(request, timeout=0.5):
            pass
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: len(gateway.gateway.streams) == 0, every_s=0.05)


async def test_slow_filter_is_named_in_the_status(gateway, feeder):
    await feeder.publish(5000, 500)
    request = stream_pb2.StreamEventsRequest(
        allow_list=ATTACKS["four loops"](), after=stream_pb2.Cursor(), no_follow=True
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in gateway.events.StreamEvents(request):
            pass
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "ms of CPU time an event, at most 0.5 ms are allowed" in (caught.value.details() or "")


def document_of_mistakes(count=17_000):
    head = "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: x}\nspec:\n"
    return head + "  kprobes:\n" + "  - {calll: 1}\n" * count


def fields(count):
    paths = [f"process.pod.pod_labels.a{n}" for n in range(count)]
    return [events_pb2.FieldFilter(fields=FieldMask(paths=paths), action=events_pb2.INCLUDE)]


SENSORS, EVENTS = "/tetragon.FineGuidanceSensors/", "/tetra.v1.EventStream/"
POLICIES, PLANS = "/tetra.v1.Policies/", "/tetra.v1.PolicyPlans/"
# Requests that make a method work as long as it may.
EXPENSIVE = {
    "regexes": (EVENTS + "StreamEvents", lambda: stream_pb2.StreamEventsRequest(
        last=1 << 60, no_follow=True, allow_list=ATTACKS["256 filters"]())),
    "fields": (EVENTS + "StreamEvents", lambda: stream_pb2.StreamEventsRequest(
        after=stream_pb2.Cursor(), no_follow=True, field_filters=fields(6000))),
    "window": (EVENTS + "StreamEvents", lambda: stream_pb2.StreamEventsRequest(
        after=stream_pb2.Cursor(), no_follow=True,
        aggregation_options=events_pb2.AggregationOptions(window_size=Duration(seconds=1)))),
    "loops": (SENSORS + "GetEvents", lambda: events_pb2.GetEventsRequest(
        allow_list=ATTACKS["four loops"]())),
    "count": (EVENTS + "CountEvents", lambda: stream_pb2.CountEventsRequest(
        by=["arguments", "binary"], allow_list=ATTACKS["256 filters"]())),
    "first seen": (EVENTS + "CountEvents", lambda: stream_pb2.CountEventsRequest(
        by=["arguments"], first_seen=True, since=Timestamp(seconds=1),
        allow_list=ATTACKS["four loops"]())),
    "policy": (POLICIES + "AddPolicy", lambda: (
        policies_pb2.AddPolicyRequest(yaml=document_of_mistakes()))),
    "policy of Tetragon": (SENSORS + "AddTracingPolicy", lambda: (
        sensors_pb2.AddTracingPolicyRequest(yaml=document_of_mistakes()))),
    "try": (POLICIES + "TryPolicy", lambda: (
        policies_pb2.TryPolicyRequest(yaml=document_of_mistakes()))),
    "plan": (PLANS + "PlanPolicy", lambda: (
        plans_pb2.PlanPolicyRequest(yaml=document_of_mistakes()))),
}  # fmt: skip
TURN_S = 0.3  # CPU time: a busy machine changes nothing


@pytest.fixture
def longest_turn(monkeypatch):
    """The most CPU time that one callback of the event loop took."""
    longest: list[Any] = [0.0, ""]
    run = asyncio.events.Handle._run

    def timed(self):
        start_s = time.thread_time()
        run(self)
        took_s = time.thread_time() - start_s
        if took_s > longest[0]:
            longest[:] = took_s, repr(self)

    monkeypatch.setattr(asyncio.events.Handle, "_run", timed)
    return longest


@pytest.mark.parametrize("name", EXPENSIVE)
async def test_no_request_holds_the_event_loop(gateway, feeder, longest_turn, name):
    await feeder.answer()
    await feeder.publish(200, 20)
    method, make = EXPENSIVE[name]
    request = make().SerializeToString()
    longest_turn[0] = 0.0
    call = gateway.channel.unary_stream(method)(request, timeout=120)
    if name == "loops":  # it reads no past
        await call.initial_metadata()
        await feeder.publish(1000, 20)
    with suppress(grpc.aio.AioRpcError):
        async for _ in call:
            if name == "window":
                break
    assert longest_turn[0] < TURN_S, longest_turn
    call.cancel()


@pytest.mark.parametrize(
    "key",
    ["calll", "ш" * 100],
    ids=["ascii", "encoded"],  # gRPC sends six bytes for a ш
)
async def test_refusal_of_a_document_with_many_mistakes_is_short(gateway, key):
    call = gateway.channel.unary_unary(POLICIES + "AddPolicy")
    yaml = document_of_mistakes(1000).replace("calll", key)
    request = policies_pb2.AddPolicyRequest(yaml=yaml).SerializeToString()
    for _ in range(5):  # gRPC refuses too much metadata at random
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        lines = (caught.value.details() or "").splitlines()
        assert lines[0] == "policy:6:5: spec.kprobes[0]: call is missing"
        assert lines[-1] == f"and {2000 - len(lines) + 1} more mistakes"
