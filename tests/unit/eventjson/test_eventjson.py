"""The compiled JSON encoder writes what protobuf's own writes; the decoder reads it back."""

import json
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventjson.decoder import decode
from eventjson.encoder import JsonEncoder
from support.random_messages import fill
from tetra.v1.stream_pb2 import StreamEventsResponse
from tetragon.events_pb2 import Filter, GetEventsRequest, GetEventsResponse
from tetragon.sensors_pb2 import GetDebugResponse, GetInfoResponse, ListTracingPoliciesResponse
from tetragon.tetragon_pb2 import KprobeArgument, Process, ProcessKprobe

MESSAGES = (
    GetEventsResponse,
    Process,
    KprobeArgument,
    ProcessKprobe,
    GetEventsRequest,
    Filter,
    GetDebugResponse,
    ListTracingPoliciesResponse,
    StreamEventsResponse,
)


@st.composite
def messages(draw):
    message = draw(st.sampled_from(MESSAGES))()
    fill(draw, message, 4, st.text(max_size=12))
    return message


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages())
def test_equal_to_protobufs_own_on_random_messages(message):
    expected = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert json.loads(JsonEncoder(extensions=True).encode(message)) == expected


def test_every_message_of_the_api_compiles():
    for message in (*MESSAGES, GetInfoResponse):
        assert JsonEncoder().encode(message()) == "{}"


def test_members_are_in_the_order_of_their_declaration():
    limited = GetEventsResponse(node_name="n")
    limited.rate_limit_info.number_of_dropped_process_events = 7
    assert JsonEncoder().encode(limited) == (
        '{"rate_limit_info":{"number_of_dropped_process_events":"7"},"node_name":"n"}'
    )
    argument = KprobeArgument(label="l")
    argument.module_arg.name = "m"
    assert JsonEncoder().encode(argument) == '{"module_arg":{"name":"m"},"label":"l"}'


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_written_event_is_read_back(data):
    event = GetEventsResponse(node_name="n")
    event.process_exec.SetInParent()
    fill(data.draw, event.process_exec.process, 3, st.text(max_size=12))
    assert decode(JsonEncoder(extensions=True).encode(event).encode()) == event


def test_line_that_is_no_event_is_skipped():
    lines = [b"", b"{", b"[]", b"1", b"{}", b'{"node_name":"n"}', b"\xff", b'{"a":' * 5000]
    assert [decode(line) for line in lines] == [None] * len(lines)


def test_unknown_fields_are_ignored():
    event = decode(b'{"process_exec":{"process":{"pid":7,"shoe_size":44}},"colour":"red"}')
    assert event is not None
    assert event.process_exec.process.pid.value == 7


def test_kind_of_event_that_tetragon_lacks_is_written():
    file = descriptor_pb2.FileDescriptorProto(name="own_kind.proto", package="test")
    body = file.message_type.add(name="Body")
    body.field.add(name="name", number=1, type=9, label=1)
    body.field.add(name="own", number=10000, type=9, label=1)
    event = file.message_type.add(name="Event")
    event.oneof_decl.add(name="event")
    event.field.add(
        name="own_kind", number=10000, type=11, label=1, type_name=".test.Body", oneof_index=0
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Event"))
    message: Any = kind()
    message.own_kind.name = "n"
    message.own_kind.own = "o"
    assert JsonEncoder().encode(message) == '{"own_kind":{"name":"n"}}'
