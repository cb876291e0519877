"""The question in a message of DNS (RFC 1035, 4.1): its name and type."""

from __future__ import annotations

from struct import Struct

_HEADER = Struct(">HHHHHH")
_TAIL = Struct(">HH")
_TYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA",
          33: "SRV", 64: "SVCB", 65: "HTTPS", 255: "ANY"}  # fmt: skip
_RESPONSE = 0x8000
_LONGEST_LABEL = 63


def question(message: bytes) -> str:
    """Return ``example.com AAAA``; "" if this is no question."""
    if len(message) < _HEADER.size:
        return ""
    _, flags, questions, *_ = _HEADER.unpack_from(message)
    if flags & _RESPONSE or questions < 1:
        return ""
    labels, at = [], _HEADER.size
    while at < len(message) and (size := message[at]):
        if size > _LONGEST_LABEL or at + 1 + size > len(message):
            return ""
        labels.append(message[at + 1 : at + 1 + size].decode(errors="backslashreplace"))
        at += 1 + size
    if at + 1 + _TAIL.size > len(message):
        return ""
    kind, _ = _TAIL.unpack_from(message, at + 1)
    return f"{'.'.join(labels) or '.'} {_TYPES.get(kind, f'TYPE{kind}')}"
