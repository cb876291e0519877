"""A gateway without clients reads nothing, and its next client misses nothing."""

import asyncio
from contextlib import suppress

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bus.subjects import EVENTS_STREAM
from gateway.subscriber import Subscriber
from support.gateways import numbers_in, read_numbers
from support.waiting import eventually
from tetra.v1 import stream_pb2
from tetragon import tetragon_pb2


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Rest and look soon."""
    monkeypatch.setattr("gateway.subscriber.REST_AFTER_S", 0.2)
    monkeypatch.setattr("gateway.subscriber.LOOK_EVERY_S", 0.1)
    monkeypatch.setattr("gateway.pull.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("gateway.fleet.POLL_S", 0.1)


async def consumers(nc):
    return len(await nc.jetstream().consumers_info(EVENTS_STREAM))


def read(gateway):
    return gateway.gateway.streams.broadcaster.statistics().events_total


async def test_without_a_client_there_is_no_consumer_and_nothing_is_read(gateway, nc, feeder):
    await feeder.publish(100)
    await eventually(lambda: gateway.gateway.streams.broadcaster.head == 10)
    assert await consumers(nc) == 0
    assert read(gateway) == 0


async def test_after_the_last_client_the_gateway_rests_again(gateway, nc, feeder):
    first, second = await gateway.stream(), await gateway.stream()
    assert await consumers(nc) == 1
    await feeder.publish(10)
    await read_numbers(second, 10)
    first.cancel()
    await feeder.publish(10)
    await read_numbers(second, 10)
    second.cancel()

    async def none():
        return await consumers(nc) == 0

    await eventually(none)
    await feeder.publish(10)
    await eventually(lambda: gateway.gateway.streams.broadcaster.head == 3)
    assert read(gateway) == 20


@pytest.mark.parametrize(
    ("start", "first"),
    [({"last": 30}, 71), ({"since": {"seconds": 1}}, 1), ({"after": {"stream_sequence": 4}}, 31)],
    ids=["last", "since", "after"],
)
async def test_first_client_gets_the_past_and_what_follows(gateway, feeder, start, first):
    await feeder.publish(100)
    call = await gateway.stream(**start)
    await feeder.publish(50)
    assert await read_numbers(call, 151 - first) == list(range(first, 151))
    call.cancel()


async def test_first_client_without_a_start_gets_what_follows(gateway, feeder):
    await feeder.publish(100)
    call = await gateway.stream()
    await feeder.publish(50)
    assert await read_numbers(call, 50) == list(range(101, 151))
    call.cancel()


async def test_first_client_of_the_public_api_gets_what_follows(gateway, feeder):
    await feeder.publish(100)
    call = await gateway.subscribe()
    await feeder.publish(50)
    assert await read_numbers(call, 50) == list(range(101, 151))
    call.cancel()


async def test_client_that_returns_to_a_resting_gateway_misses_nothing(gateway, nc, feeder):
    got: list[int] = []
    cursor = stream_pb2.Cursor(stream_sequence=1)
    for _ in range(3):
        await feeder.publish(25)  # while no client is connected
        call = await gateway.stream(after=cursor)
        await feeder.publish(25)
        while len(got) < feeder.sequence:
            response = await call.read()
            assert not response.gaps
            assert not response.losses
            got += numbers_in(response)
            cursor = response.cursor
        call.cancel()

        async def none():
            return await consumers(nc) == 0

        await eventually(none)
    assert got == list(range(1, 151))


async def test_resting_gateway_is_healthy_and_knows_its_nodes(gateway, feeder):
    await feeder.answer()
    await feeder.publish(20)
    fleet = gateway.gateway.fleet

    async def stored():
        (node,) = (await gateway.events.ListNodes(stream_pb2.ListNodesRequest())).nodes
        return node.alive and node.stored_sequence == node.last_sequence == 20

    await eventually(stored)
    assert fleet.waiting() == {"n1": 0}
    assert fleet.stalled() == []
    health = health_pb2_grpc.HealthStub(gateway.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    details = await gateway.sensors.GetHealth(tetragon_pb2.GetHealthStatusRequest())
    assert [one.details for one in details.health_status] == ["running"]


async def test_subscriber_ends_although_a_call_loses_its_cancellation(gateway, monkeypatch):
    # nats-py does so where the answer comes at the same time.
    own = gateway.gateway.subscriber
    subscriber = Subscriber(own._nc, own._settings, own._broadcaster, own._on_batch)
    asked, ask = asyncio.Event(), subscriber._js.stream_info

    async def ask_and_lose(*args, **kwargs):
        answer = await ask(*args, **kwargs)
        asked.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        return answer

    monkeypatch.setattr(subscriber._js, "stream_info", ask_and_lose)
    task = asyncio.create_task(subscriber.run())
    await asked.wait()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=25)
    assert done


async def test_stream_deleted_while_the_gateway_rests_is_created_again(gateway, nc, feeder):
    await feeder.publish(10)
    await nc.jetstream().delete_stream(EVENTS_STREAM)
    await feeder.publish(10)
    call = await gateway.stream()
    await feeder.publish(10)
    assert await read_numbers(call, 10) == list(range(21, 31))
    call.cancel()


async def test_client_waits_while_the_stream_is_being_created(gateway, nc, feeder, monkeypatch):
    subscriber = gateway.gateway.subscriber
    check, checking = subscriber._took_over, asyncio.Event()

    async def check_late():
        checking.set()
        await asyncio.sleep(0.5)  # as on a busy machine
        return await check()

    monkeypatch.setattr(subscriber, "_took_over", check_late)
    await feeder.publish(10)
    await nc.jetstream().delete_stream(EVENTS_STREAM)
    await checking.wait()  # the stream exists
    assert not subscriber.live
    await feeder.publish(10)
    call = await gateway.stream()
    await feeder.publish(10)
    assert await read_numbers(call, 10) == list(range(21, 31))
    call.cancel()


async def test_gateway_reads_without_clients_where_the_setting_asks_for_it(start_gateway, nc):
    from support.feeder import Feeder

    gateway = await start_gateway(read_without_clients=True)
    await Feeder(nc).publish(100)
    await eventually(lambda: read(gateway) == 100)
