"""Every method of the API is listed with the right that it needs, and nothing else is."""

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from chassis import tokens
from gateway import rights
from tetra.v1 import plans_pb2, policies_pb2, stream_pb2
from tetragon import eventlogservice_pb2, sensors_pb2

SERVED = (
    stream_pb2, policies_pb2, plans_pb2, sensors_pb2, eventlogservice_pb2, health_pb2,
    reflection_pb2,
)  # fmt: skip


def methods():
    return {
        f"/{service.full_name}/{method.name}"
        for module in SERVED
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def test_every_method_is_listed():
    assert methods() == rights.NEEDED.keys()


def test_only_health_needs_no_token():
    assert {name.split("/")[1] for name, right in rights.NEEDED.items() if not right} == {
        "grpc.health.v1.Health"
    }


def test_changes_need_more_than_the_right_to_read():
    reading = ("Get", "List", "Stream", "Count", "ServerReflectionInfo")
    for name, right in rights.NEEDED.items():
        method = name.rpartition("/")[2]
        if right:
            assert (right == tokens.READ) == method.startswith(reading), name
        if "Policy" in method and not method.startswith(reading):
            assert right == tokens.POLICIES
