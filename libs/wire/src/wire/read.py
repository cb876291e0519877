"""Read single fields of a serialized message without parsing all of it.

The bytes are not trusted. Every reader stops at the first malformed byte and returns what it found
before; only `varint` raises.
"""

from __future__ import annotations

from wire.write import DELIMITED, FIXED32, FIXED64, VARINT


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at ``at`` and the place behind it; raise `ValueError` if cut short."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("varint cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def first_field(data: bytes) -> int:
    """Return the number of the first field; 0 where there is none."""
    try:
        return varint(data, 0)[0] >> 3
    except ValueError:
        return 0


def values(data: bytes, number: int) -> list[bytes]:
    """Return the length-delimited values of field ``number``."""
    at, found = 0, []
    try:
        while at < len(data):
            tag, at = varint(data, at)
            kind = tag & 7
            if kind == DELIMITED:
                size, at = varint(data, at)
                if tag >> 3 == number:
                    found.append(data[at : at + size])
                at += size
            elif kind == VARINT:
                _, at = varint(data, at)
            elif kind in (FIXED64, FIXED32):
                at += 8 if kind == FIXED64 else 4
            else:
                break
    except ValueError:
        pass
    return found


def timestamp_ns(body: bytes) -> int:
    """Return the nanoseconds since 1970 of a google.protobuf.Timestamp's body."""
    return _number(body, 1) * 1_000_000_000 + _number(body, 2)


# Of a message that has varints only, as a Timestamp does.
def _number(data: bytes, number: int) -> int:
    at = 0
    try:
        while at < len(data):
            tag, at = varint(data, at)
            value, at = varint(data, at)
            if tag >> 3 == number:
                return value
    except ValueError:
        pass
    return 0
