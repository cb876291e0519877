"""GetEvents against a real NATS: everything once, in order, as it was published."""

import asyncio

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from support.feeder import Feeder, exec_event
from support.gateways import read_numbers
from support.waiting import eventually
from tetra.v1 import stream_pb2
from tetragon import events_pb2, sensors_pb2, tetragon_pb2


async def test_events_come_once_in_order_and_unchanged(gateway, feeder):
    call = await gateway.subscribe()
    numbers = await feeder.publish(250, per_batch=7)
    assert await read_numbers(call, 250) == numbers
    special = exec_event(1) + b"\xba\x3e\x03abc"  # and an unknown field
    await feeder.send(feeder.batch([special]))
    assert (await call.read()).SerializeToString() == special


async def test_events_before_the_call_are_not_sent(gateway, feeder):
    await feeder.publish(5)
    await eventually(lambda: gateway.gateway.streams.broadcaster.head == 1)
    call = await gateway.subscribe()
    assert await feeder.publish(1) == await read_numbers(call, 1)


async def test_every_client_gets_every_event(gateway, feeder):
    calls = [await gateway.subscribe() for _ in range(5)]
    numbers = await feeder.publish(100)
    for got in await asyncio.gather(*(read_numbers(call, 100) for call in calls)):
        assert got == numbers


async def test_filters_choose_and_cut_events(gateway, feeder):
    call = await gateway.subscribe(
        allow_list=[events_pb2.Filter(arguments_regex=["^[0-9]*7$"])],
        deny_list=[events_pb2.Filter(pid=[17])],
        field_filters=[events_pb2.FieldFilter(fields=FieldMask(paths=["process.pid"]))],
    )
    await feeder.publish(30)
    assert await read_numbers(call, 2) == [7, 27]
    await feeder.publish(7)
    event = await call.read()
    assert event.process_exec.process.binary == ""
    assert event.node_name == "n1"


async def test_nats_restart_makes_no_losses_and_no_duplicates(gateway, feeder, nats_server):
    call = await gateway.subscribe()
    stream = await gateway.stream()
    numbers = await feeder.publish(50)
    for kill in (False, True):
        nats_server.stop(kill=kill)
        await eventually(lambda: not gateway.gateway.streams.live)
        nats_server.start()
        await eventually(lambda: feeder.nc.is_connected)
        numbers += await feeder.publish(50)
    assert await read_numbers(call, 150, 20) == numbers
    assert await read_numbers(stream, 150, 20) == numbers


async def test_stream_that_was_replaced_is_read_from_its_start(gateway, feeder, nc):
    call = await gateway.stream()
    await feeder.publish(50)
    await read_numbers(call, 50)
    await nc.jetstream().delete_stream("TETRA_EVENTS")

    async def is_back():
        gateway.gateway.subscriber.restart()
        return (await nc.jetstream().streams_info()) != []

    await eventually(is_back, every_s=0.2)
    numbers = await feeder.publish(3)
    assert await read_numbers(call, 3) == numbers


async def test_health_follows_nats(gateway, nats_server):
    stub = health_pb2_grpc.HealthStub(gateway.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="tetragon.FineGuidanceSensors"))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    nats_server.stop()
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    answer = await gateway.sensors.GetHealth(tetragon_pb2.GetHealthStatusRequest())
    assert answer.health_status[0].status == tetragon_pb2.HEALTH_STATUS_ERROR
    refused = gateway.sensors.GetEvents(events_pb2.GetEventsRequest())
    assert await refused.code() == grpc.StatusCode.UNAVAILABLE
    assert "nats unreachable" in await refused.details()
    nats_server.start()
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    for name in ("", "liveness", "tetra.v1.EventStream"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


async def test_gateway_without_nats_answers_not_serving_and_serves_later(
    nats_server, start_gateway, tmp_path
):
    nats_server.stop()
    starting = asyncio.create_task(start_gateway(listen_address=f"unix://{tmp_path}/g.sock"))
    async with grpc.aio.insecure_channel(f"unix://{tmp_path}/g.sock") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        nats_server.start()
        await starting
        await eventually(lambda: _is_serving(stub))


async def _is_serving(stub):
    answer = await stub.Check(health_pb2.HealthCheckRequest())
    return answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    "method",
    [
        "RuntimeHook", "ListSensors", "EnableSensor", "DisableSensor", "RemoveSensor",
    ],
)  # fmt: skip
async def test_unsupported_feature_has_a_reason(gateway, method):
    request = getattr(sensors_pb2, f"{method}Request", None) or tetragon_pb2.RuntimeHookRequest
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(gateway.sensors, method)(request())
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert f"{method} is not served: " in str(caught.value.details())


async def test_answers_about_itself(gateway):
    version = await gateway.sensors.GetVersion(sensors_pb2.GetVersionRequest())
    assert version.version.startswith("v")
    info = await gateway.sensors.GetInfo(sensors_pb2.GetInfoRequest())
    assert info.version == version.version
    assert "listen-address" in {value.key for value in info.conf}
    assert not any("password" in value.key for value in info.conf)
    policies = await gateway.sensors.ListTracingPolicies(sensors_pb2.ListTracingPoliciesRequest())
    assert policies == sensors_pb2.ListTracingPoliciesResponse()


async def test_reflection_names_every_service(gateway):
    def names():
        with grpc.insecure_channel(gateway.address) as channel:
            return set(ProtoReflectionDescriptorDatabase(channel).get_services())

    assert await asyncio.to_thread(names) >= {
        "tetragon.FineGuidanceSensors", "tetra.v1.EventStream", "grpc.health.v1.Health",
    }  # fmt: skip


async def test_clients_beyond_the_limit_are_refused(start_gateway):
    gateway = await start_gateway(max_clients=2)
    calls = [await gateway.subscribe() for _ in range(2)]
    third = gateway.sensors.GetEvents(events_pb2.GetEventsRequest())
    assert await third.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    calls[0].cancel()
    await eventually(lambda: len(gateway.gateway.streams) == 1)
    await gateway.subscribe()


async def test_clients_of_a_stopping_gateway_reconnect_to_another(nats_server, start_gateway):
    gateway = await start_gateway()
    calls = [await gateway.subscribe(), await gateway.stream()]
    await gateway.gateway.server.stop()
    for call in calls:
        assert await call.code() == grpc.StatusCode.UNAVAILABLE
        assert await call.details() == "gateway is stopping: connect again"


async def test_streams_that_begin_while_the_gateway_stops_get_a_status(gateway, caplog):
    """gRPC sends their first bytes; only after these can it send a status."""
    plain, ours = events_pb2.GetEventsRequest(), stream_pb2.StreamEventsRequest()
    calls = [gateway.sensors.GetEvents(plain) for _ in range(15)]
    calls += [gateway.events.StreamEvents(ours) for _ in range(15)]
    await calls[0].initial_metadata()
    await gateway.gateway.server.stop()
    assert await calls[0].code() == grpc.StatusCode.UNAVAILABLE
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
    for call in calls:  # gRPC may have taken some from the wire and not to the gateway
        call.cancel()


async def test_ten_collectors_make_one_stream(gateway, nc):
    feeders = [Feeder(nc, f"node {number}") for number in range(10)]
    call = await gateway.subscribe()
    await asyncio.gather(*(feeder.publish(20) for feeder in feeders))
    seen: dict[str, list[int]] = {feeder.node: [] for feeder in feeders}
    for _ in range(200):
        event = await call.read()
        seen[event.node_name].append(event.process_exec.process.pid.value)
    assert all(numbers == list(range(1, 21)) for numbers in seen.values())
