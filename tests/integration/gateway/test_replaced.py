"""The stream is replaced while a client reads it, and the gateway looks only afterwards."""

import asyncio

import pytest
from nats.js import api

from bus.subjects import EVENTS_ALL, EVENTS_STREAM
from support.gateways import read_numbers
from support.waiting import eventually


@pytest.fixture
def look_late(gateway, monkeypatch):
    """The gateway does not look at the stream before this event is set, as on a busy machine."""
    subscriber, may_look = gateway.gateway.subscriber, asyncio.Event()
    look = subscriber._ensure_stream

    async def late():
        await may_look.wait()
        await look()

    monkeypatch.setattr(subscriber, "_ensure_stream", late)
    return may_look


async def delete_stream(nc, tmp_path):
    """Delete the stream and wait until nats-server has deleted its files."""
    await nc.jetstream().delete_stream(EVENTS_STREAM)
    streams = tmp_path / "jetstream/jetstream/$G/streams"
    await eventually(lambda: not (streams / EVENTS_STREAM).exists())


@pytest.mark.parametrize("batches", [5, 8])
async def test_stream_replaced_by_one_with_as_many_messages_is_read_from_its_start(
    gateway, feeder, nc, look_late, tmp_path, batches
):
    call = await gateway.stream()
    await feeder.publish(50)
    await read_numbers(call, 50)
    await delete_stream(nc, tmp_path)
    await nc.jetstream().add_stream(name=EVENTS_STREAM, subjects=[EVENTS_ALL], allow_direct=True)
    numbers = await feeder.publish(10 * batches)
    look_late.set()
    assert await read_numbers(call, len(numbers)) == numbers


# A mirror looks like a stream that nats-server made on top of a deleted one's messages: it has the
# same numbers, and its messages are older than itself.
async def test_stream_with_the_messages_of_the_deleted_one_is_not_read_again(
    gateway, feeder, nc, look_late, tmp_path
):
    subscriber, js = gateway.gateway.subscriber, nc.jetstream()
    call = await gateway.stream()
    await feeder.publish(50)
    await read_numbers(call, 50)
    await js.add_stream(name="OLD", subjects=["old"])
    for _ in range(5):
        await js.publish("old")
    await delete_stream(nc, tmp_path)
    mirror = api.StreamConfig(name=EVENTS_STREAM, mirror=api.StreamSource(name="OLD"))
    await js.add_stream(mirror)

    async def holds_all():
        return (await js.stream_info(EVENTS_STREAM)).state.messages == 5

    await eventually(holds_all)
    placed, generation = subscriber._placed, subscriber._broadcaster.generation
    look_late.set()
    await eventually(lambda: subscriber._placed != placed)
    assert subscriber._broadcaster.generation == generation
