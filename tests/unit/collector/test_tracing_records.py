"""Records of policies: every form is decoded, and nothing but `DecodeError` comes of damage."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import DecodeError
from collector.records import values
from collector.records.tracing import decode_extras, decode_tracing

HEAD = struct.Struct("<IIIIQQQIIIIIIII")


def record(*items: tuple[int, int, int, bytes], flags: int = 0) -> bytes:
    """Return a record with items of (type, position, flags, payload)."""
    body = b"".join(
        struct.pack("<HBBI", kind, position, item_flags, len(data))
        + data.ljust((len(data) + 7) // 8 * 8, b"\0")
        for kind, position, item_flags, data in items
    )
    return HEAD.pack(
        16, 7, 3, 2, 1000, 900, 0, 41, 42, 1, 2, 8, flags, len(body), len(items)
    ) + body  # fmt: skip


def test_items_are_ordered_by_position():
    found = decode_tracing(
        record((6, 1, 0, b"text"), (1, 0, 0, (-5 % (1 << 64)).to_bytes(8, "little")),
               (64, 48, 0, struct.pack("<2Q", 5, 6)), (10, 32, 0, bytes(8)))
    )  # fmt: skip
    assert found == values.TracingRecord(
        policy=7, revision=3, hook=2, ktime_ns=1000, image_ktime_ns=900, pid=41, tid=42, action=3,
        args=(-5, b"text"), returned=(0,), return_action=9, kernel_stack=(5, 6), selector=1,
    )  # fmt: skip


NUMBERS = st.tuples(
    st.sampled_from([1, 10, 12, 23, 29, 31, 45, 4, 11, 13, 30, 32, 33, 47]),
    st.integers(0, 2**64 - 1).map(lambda number: number.to_bytes(8, "little")),
)


@given(st.lists(NUMBERS, max_size=12), st.booleans())
def test_numbers_are_the_same_beside_numbers_and_beside_a_text(numbers, last_is_text):
    items = [(kind, place, 0, data) for place, (kind, data) in enumerate(numbers)]
    signed = {1, 10, 12, 23, 29, 31, 45}
    wanted: tuple[object, ...] = tuple(
        int.from_bytes(data, "little", signed=kind in signed) for kind, data in numbers
    )
    if last_is_text:
        items.append((6, len(items), 0, b"x"))
        wanted += (b"x",)
    assert decode_tracing(record(*items)).args == wanted


@pytest.mark.parametrize(
    ("items", "args"),
    [
        ([(1, 1, 0, bytes(8))], (values.Absent(), 0)),
        ([(1, 0, 0, b"\5" + bytes(7)), (1, 0, 0, b"\6" + bytes(7))], (6,)),
        ([(1, 0, 1, struct.pack("<Ii", 1, 0)), (1, 1, 0, bytes(8))], (values.Unreadable(), 0)),
        ([(1, 0, 0, b"\5" + bytes(7)), (6, 1, 0, b"8 bytes.")], (5, b"8 bytes.")),
    ],
)
def test_items_of_eight_bytes_that_are_no_plain_numbers(items, args):
    assert decode_tracing(record(*items)).args == args


def test_later_item_replaces_an_earlier_one():
    long = struct.pack("<Q", 9) + b"nine long"
    found = decode_tracing(record((2, 0, 2, struct.pack("<Q", 9) + b"ni"), (2, 0, 0, long)))
    assert found.args == (b"nine long",)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ((1, 0, 1, struct.pack("<Ii", 1, 0)), values.Unreadable()),
        ((1, 0, 1, struct.pack("<Ii", 2, 3)), values.Unreadable(3)),
        ((2, 0, 1, struct.pack("<Ii", 3, 2)), values.BufferFault(2)),
        ((2, 0, 2, struct.pack("<Q", 99) + b"abc"), values.TruncatedBytes(b"abc", 99)),
        ((44, 0, 4, struct.pack("<4H", 1, 0, 0, 0) + b"@name"), values.SockaddrUn(1, b"\0name")),
        ((28, 0, 0, struct.pack("<Q", 0x8000_0005)), values.Syscall(5, compat=True)),
        ((16, 0, 0, b""), None),
        ((40, 0, 0, struct.pack("<HHI16s", 2, 80, 0, b"\1\2\3\4junk")),
         values.Sockaddr(2, b"\1\2\3\4", 80)),
    ],
)  # fmt: skip
def test_forms_of_values(item, expected):
    assert decode_tracing(record(item)).args == (expected,)


def test_selector_and_flags():
    assert decode_extras(record(flags=2)) == (1, 2)


KINDS = (1, 2, 5, 6, 7, 8, 16, 18, 19, 20, 21, 22, 26, 40, 44, 64, 99)


@given(st.data())
def test_damaged_records_are_refused(data):
    item = (
        data.draw(st.sampled_from(KINDS)), data.draw(st.integers(0, 60)),
        data.draw(st.integers(0, 7)), data.draw(st.binary(max_size=80)),
    )  # fmt: skip
    raw = bytearray(record(item))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(DecodeError):
        decode_tracing(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
