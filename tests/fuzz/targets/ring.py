"""The ring's memory: the first part is what lies between the two positions.

Lengths and flags may lie, positions are the kernel's own. Reading always comes to an end, gives
nothing from outside the memory, and only moves on.
"""

from __future__ import annotations

import mmap
import os
from random import Random
from struct import pack, pack_into, unpack_from

from collector.bpf.ring import Ring
from fuzz.inputs import flipped, join

_PAGE = mmap.PAGESIZE
_SIZE = _PAGE
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_LIMIT = 7

_fd = os.memfd_create("ring")
os.ftruncate(_fd, 2 * _PAGE + 2 * _SIZE)
_memory = mmap.mmap(_fd, 2 * _PAGE + 2 * _SIZE)


def check(options: int, parts: list[bytes]) -> None:
    """Lay the bytes out, from a place that the options choose, and drain them."""
    area = (parts[0] if parts else b"")[:_SIZE]
    area += bytes(-len(area) % 8)
    begin = options * 8
    for at in range(0, len(area), 8):  # as the kernel maps it: twice in a row
        for start in (0, _SIZE):
            place = 2 * _PAGE + start + (begin + at) % _SIZE
            _memory[place : place + 8] = area[at : at + 8]
    pack_into("<Q", _memory, 0, begin)
    pack_into("<Q", _memory, _PAGE, begin + len(area))
    ring = Ring(os.dup(_fd), _SIZE)
    try:
        position, drains = begin, 0
        while True:
            records = ring.drain(_LIMIT)
            drains += 1
            assert drains <= len(area) // 8 + 1, "no end"
            assert len(records) <= _LIMIT
            assert all(len(record) <= 2 * _SIZE for record in records)
            (now,) = unpack_from("<Q", _memory)
            assert now >= position + 8 * len(records)
            position = now
            if not records:
                break
        if _honest(area):
            assert position == begin + len(area) or _is_busy(area)
    finally:
        ring.close()


# Whether the records follow each other up to the end, as the kernel writes them.
def _honest(area: bytes) -> bool:
    at = 0
    while at < len(area):
        at += (_length(area, at) + 15) & ~7
    return at == len(area)


def _is_busy(area: bytes) -> bool:
    at = 0
    while at < len(area):
        if unpack_from("<I", area, at)[0] & _BUSY:
            return True
        at += (_length(area, at) + 15) & ~7
    return False


def _length(area: bytes, at: int) -> int:
    return int(unpack_from("<I", area, at)[0]) & ~_BUSY & ~_DISCARDED


def mutate(part: bytes, rng: Random) -> bytes:
    """Another length or flag at a place where a record may begin."""
    if not part or rng.random() < 0.2:
        return part + _record(rng.randbytes(rng.randrange(30)), rng.choice((0, 0, _DISCARDED)))
    if rng.random() < 0.2:
        return flipped(part, rng)
    at = rng.randrange(len(part)) & ~7
    length = rng.choice((0, 1, 8, 15, 16, 100, _SIZE, _DISCARDED, _BUSY, (1 << 30) - 1, 0xFFFFFFFF))
    return part[:at] + pack("<I", length) + part[at + 4 :]


def _record(data: bytes, flags: int = 0) -> bytes:
    return pack("<II", len(data) | flags, 0) + data + bytes(-len(data) % 8)


def seeds() -> list[bytes]:
    """Records of several lengths, one discarded, one busy, across the end of the memory."""
    some = b"".join(_record(b"x" * n) for n in (0, 1, 7, 8, 9, 40, 200, 32, 48))
    return [
        join(0, [some]),
        join(0xFF, [some + _record(b"gone", _DISCARDED) + some]),
        join(200, [_record(b"y" * 8) * 60 + _record(b"slow", _BUSY) + some]),
    ]
