"""Constants that a program gets when it is loaded: NUMBER of bpf/tracing/program.h.

The compiled text has a 16-byte load with source register 15 for each; here it becomes a plain load
of the constant, so one object serves every slot, revision and target. Calls of kernel functions are
completed here too: the compiler writes calls of helpers with numbers from KERNEL_FUNCTION on.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from collector.bpf.bytecode import loads_of_16_bytes

_SLOT = 8
_NUMBER = 15
_CALL = 0x85
_PSEUDO_KFUNC_CALL = 2  # in the source register
_KERNEL_FUNCTION = 0x40000000  # KERNEL_FUNCTION of bpf/tracing/program.h


class Number(IntEnum):
    """``enum number`` of bpf/tracing/program.h."""

    SLOT = 0
    POLICY = 1
    REVISION = 2
    HOOK = 3
    LEVEL = 4
    FUNCTION = 5
    SIGNALS_MAX = 6


LIST = 16  # NUMBER_LIST: from here on the mask of each list of binaries of a text
GROUP = 80  # NUMBER_GROUP: the same of each filter on containers


def bind(instructions: bytes, values: Mapping[int, int]) -> bytes:
    """Return the instructions with the constants in place; raise KeyError for one not given."""
    out = bytearray(instructions)
    for at in loads_of_16_bytes(instructions):
        if out[at + 1] >> 4 == _NUMBER:
            which = int.from_bytes(out[at + 4 : at + 8], "little")
            value = values[which].to_bytes(8, "little")
            out[at + 1] &= 0x0F
            out[at + 4 : at + 8] = value[:4]
            out[at + 12 : at + 16] = value[4:]
    _bind_calls(out)
    return bytes(out)


def _bind_calls(out: bytearray) -> None:
    codes, at = out[::_SLOT], -1
    while (at := codes.find(_CALL, at + 1)) >= 0:
        place = at * _SLOT
        called = int.from_bytes(out[place + 4 : place + 8], "little") - _KERNEL_FUNCTION
        if called > 0 and not out[place + 1]:  # with a register there it is no helper's call
            out[place + 1] = _PSEUDO_KFUNC_CALL << 4
            out[place + 4 : place + 8] = called.to_bytes(4, "little")
