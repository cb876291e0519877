"""The compiled JSON encoder is held to protobuf's own."""

import json

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.renderers.json import JsonEncoder, JsonRenderer
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

INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, (1 << 64) - 1),
}


def fill(draw, message, depth):
    """Set some fields of ``message`` to anything their types allow."""
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        message.seconds = draw(st.integers(-62135596800, 253402300799))
        digits = draw(st.sampled_from([0, 3, 6, 9]))
        message.nanos = draw(st.integers(0, 10**digits - 1)) * 10 ** (9 - digits)
        return
    if message.DESCRIPTOR.full_name == "google.protobuf.Duration":
        message.FromNanoseconds(draw(st.integers(0, 10**15)))
        return
    if message.DESCRIPTOR.full_name == "google.protobuf.FieldMask":
        message.paths.extend(["process.exec_id", "parent"])
        return
    fields = list(message.DESCRIPTOR.fields)
    for place in draw(st.sets(st.integers(0, len(fields) - 1), max_size=4)) if fields else ():
        set_field(draw, message, fields[place], depth)


def set_field(draw, message, field, depth):
    target = getattr(message, field.name)
    if field.message_type and field.message_type.GetOptions().map_entry:
        value = scalar(field.message_type.fields_by_name["value"])
        target.update(draw(st.dictionaries(st.text(max_size=4), value, max_size=3)))
    elif field.message_type:
        if depth == 0:
            return
        if field.is_repeated:
            for _ in range(draw(st.integers(0, 2))):
                fill(draw, target.add(), depth - 1)
        else:
            target.SetInParent()
            fill(draw, target, depth - 1)
    elif field.is_repeated:
        target.extend(draw(st.lists(scalar(field), max_size=3)))
    else:
        setattr(message, field.name, draw(scalar(field)))


def scalar(field):
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.text(max_size=12)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=12)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.sampled_from([*field.enum_type.values_by_number, 77777])
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return st.floats(allow_nan=True, width=32)
    return INTEGERS[field.cpp_type]


@st.composite
def messages(draw):
    message = draw(st.sampled_from(MESSAGES))()
    fill(draw, message, depth=4)
    return message


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages())
def test_equal_to_protobufs_own_on_random_messages(message):
    expected = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert json.loads(JsonEncoder(extensions=True).encode(message)) == expected


def test_every_message_of_the_api_compiles():
    for message in (*MESSAGES, GetInfoResponse):
        assert JsonEncoder().encode(message()) == "{}"


def test_golden_line(exec_event):
    event = exec_event(exec_id="bm9kZTE6MTox", flags="execve clone")
    assert JsonRenderer().render([event]) == (
        '{"process_exec":{"process":{"exec_id":"bm9kZTE6MTox","pid":101708,"uid":0,'
        '"binary":"/usr/sbin/iptables","arguments":"-L","flags":"execve clone"}},'
        '"node_name":"node1","time":"2026-01-01T00:00:00.123456789Z"}\n'
    )


def test_our_own_fields_are_shown_on_request_only(exec_event):
    event = exec_event(argv=[b"iptables", b"-L"])
    assert "user_name" not in JsonRenderer().render([event])
    shown = json.loads(JsonRenderer(extensions=True).render([event]))
    assert shown["process_exec"]["process"]["user_name"] == "root"
    assert shown["process_exec"]["process"]["argv"] == ["aXB0YWJsZXM=", "LUw="]


def test_wrappers_are_shown_when_they_are_zero(exec_event):
    event = exec_event(pid=0)
    event.process_exec.process.in_init_tree.value = False
    process = json.loads(JsonRenderer().render([event]))["process_exec"]["process"]
    assert (process["pid"], process["in_init_tree"]) == (0, False)


def test_members_stand_in_the_order_of_their_declaration():
    limited = GetEventsResponse(node_name="n")
    limited.rate_limit_info.number_of_dropped_process_events = 7
    assert JsonEncoder().encode(limited) == (
        '{"rate_limit_info":{"number_of_dropped_process_events":"7"},"node_name":"n"}'
    )
    argument = KprobeArgument(label="l")
    argument.module_arg.name = "m"
    assert JsonEncoder().encode(argument) == '{"module_arg":{"name":"m"},"label":"l"}'


def test_nothing_that_a_terminal_obeys_is_printed_raw(exec_event):
    nasty = "\x1b[2J\x7f\u009b31m\u202e\u2028\U000e0041é😀"
    text = JsonRenderer().render([exec_event(arguments=nasty)])
    assert all(char.isprintable() for char in text.rstrip("\n"))
    assert "é😀" in text
    assert json.loads(text)["process_exec"]["process"]["arguments"] == nasty
