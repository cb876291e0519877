"""Hand-written bytes are what protobuf writes, and what it writes is read back."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue, UInt32Value, UInt64Value
from hypothesis import given
from hypothesis import strategies as st

from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process, ProcessExec
from wire import read, write
from wire.splice import splicer

U64 = st.integers(0, 2**64 - 1)
LAST_NS = 253_402_300_799_999_999_999  # the year 9999


@given(U64)
def test_varint_is_protobufs_and_is_read_back(value):
    raw = write.varint(value)
    assert UInt64Value.FromString(b"\x08" + raw).value == value
    assert value == 0 or b"\x08" + raw == UInt64Value(value=value).SerializeToString()
    assert read.varint(b"xy" + raw + b"z", 2) == (value, 2 + len(raw))


@given(U64)
def test_varint_cut_short_is_an_error(value):
    with pytest.raises(ValueError, match="cut short"):
        read.varint(write.varint(value)[:-1], 0)


def test_varint_without_end_is_an_error():
    with pytest.raises(ValueError, match="cut short"):
        read.varint(b"\xff" * 12, 0)


@given(st.text())
def test_text_is_protobufs(value):
    assert write.text(write.tag(1), value) == StringValue(value=value).SerializeToString()


@given(st.integers(0, 2**32 - 1))
def test_wrapped_number_is_protobufs(value):
    field = write.uint32_value(write.tag(Process.PID_FIELD_NUMBER), value)
    assert field == Process(pid=UInt32Value(value=value)).SerializeToString()


@given(st.integers(0, LAST_NS))
def test_timestamp_is_protobufs_and_is_read_back(time_ns):
    wanted = Timestamp()
    wanted.FromNanoseconds(time_ns)
    assert write.timestamp(time_ns) == wanted.SerializeToString()
    assert read.timestamp_ns(write.timestamp(time_ns)) == time_ns


def test_first_field_is_the_events_type():
    event = GetEventsResponse(process_exec=ProcessExec(), node_name="n")
    assert read.first_field(event.SerializeToString()) == 1
    assert read.first_field(b"") == 0
    assert read.first_field(b"\xff") == 0


@given(st.lists(st.binary(max_size=300)))
def test_values_of_a_field_are_found_among_others(values):
    others = b"\x18\x96\x01" + b"\x21" + bytes(8) + b"\x2d" + bytes(4)  # varint, fixed 64 and 32
    data = b"".join(others + write.message(write.tag(9), value) for value in values)
    assert read.values(data, 9) == values
    assert read.values(data, 8) == []


@given(st.binary())
def test_values_of_any_bytes_raise_nothing(data):
    read.values(data, 1)
    read.timestamp_ns(data)


@given(st.lists(st.binary(max_size=50)))
def test_spliced_messages_are_elements_of_the_field(messages):
    field = write.tag(7)
    assert splicer(7)(messages) == b"".join(write.message(field, one) for one in messages)
