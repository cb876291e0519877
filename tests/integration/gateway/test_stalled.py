"""Collectors with events that the stream does not store: reported by the gateway's health."""

import asyncio

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nats.js import api

from support.feeder import Feeder
from support.waiting import eventually
from tetragon import tetragon_pb2


@pytest.fixture
def quick(monkeypatch):
    """Report it after half a second."""
    monkeypatch.setattr("gateway.fleet.STALLED_AFTER_S", 0.5)
    monkeypatch.setattr("gateway.fleet.POLL_S", 0.1)


async def healths(gateway):
    answer = await gateway.sensors.GetHealth(tetragon_pb2.GetHealthStatusRequest())
    return [(h.status, h.details) for h in answer.health_status]


async def test_stream_that_stores_nothing_is_reported_until_it_does_again(quick, gateway, feeder):
    watch = health_pb2_grpc.HealthStub(gateway.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    await feeder.publish(3)
    await feeder.answer()
    fleet = gateway.gateway.fleet
    await fleet.describe()
    assert fleet.stalled() == []
    feeder.sequence += 40  # made, and never acknowledged
    await fleet.describe()
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    first, node = await healths(gateway)
    assert first[0] == node[0] == tetragon_pb2.HEALTH_STATUS_ERROR
    assert "stream TETRA_EVENTS stores no events" in first[1]
    assert node[1].startswith("node n1: 40 events wait at its collector")

    feeder.sequence -= 40
    await feeder.publish(40)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    assert await healths(gateway) == [(tetragon_pb2.HEALTH_STATUS_RUNNING, "running")]
    watch.cancel()


async def test_one_node_that_cannot_publish_leaves_the_stream_healthy(quick, gateway, nc):
    healthy, stalled = Feeder(nc, "healthy"), Feeder(nc, "stalled")
    for feeder in (healthy, stalled):
        await feeder.publish(1)
        await feeder.answer()
    fleet = gateway.gateway.fleet
    stalled.sequence += 1
    await fleet.describe()

    async def reported():
        await healthy.publish(1)
        await fleet.describe()
        return fleet.stalled()

    assert await eventually(reported, every_s=0.1) == ["stalled"]
    assert not fleet.stream_is_stuck
    [_, node] = await healths(gateway)
    assert node[1].startswith("node stalled: 1 event waits")


async def test_an_idle_node_whose_events_aged_out_is_not_stalled(
    gateway, feeder, nc, start_gateway, quick
):
    await feeder.publish(50)
    await nc.jetstream().purge_stream("TETRA_EVENTS")
    await feeder.answer()
    later = await start_gateway()
    await later.gateway.fleet.describe()
    await asyncio.sleep(0.6)  # longer than a node needs to count as stalled
    assert later.gateway.fleet.stalled() == []
    assert not later.gateway.fleet.stream_is_stuck


# With nats-server 2.15.1 a stream that is made while the old one is being deleted keeps the old
# one's messages and acknowledges nothing: one time in twenty. A mirror looks the same: it has
# messages that are older than the stream.
async def test_a_stream_on_top_of_a_dead_one_is_known_by_messages_older_than_itself(nc, gateway):
    subscriber = gateway.gateway.subscriber
    assert not await subscriber._took_over()
    await Feeder(nc).publish(3)
    assert not await subscriber._took_over()
    js = nc.jetstream()
    await js.delete_stream("TETRA_EVENTS")
    await js.add_stream(name="OLD", subjects=["tetra.events.>"])
    await Feeder(nc).publish(3)
    mirror = api.StreamConfig(name="TETRA_EVENTS", mirror=api.StreamSource(name="OLD"))
    await js.add_stream(mirror)

    async def mirrored():
        return (await js.stream_info("TETRA_EVENTS")).state.messages == 1

    await eventually(mirrored)
    assert await subscriber._took_over()

    async def reported():
        subscriber.stream_is_dead = True
        [(_, text)] = await healths(gateway)
        return "took over the state of a deleted one: make room" in text

    await eventually(reported)
