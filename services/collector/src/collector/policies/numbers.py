"""Constants that a program gets when it is loaded: NUMBER of bpf/tracing/program.h.

The compiled text has a 16-byte load with source register 15 for each; here it becomes a plain load
of the constant, so one object serves every slot, revision and target. Calls of kernel functions are
completed here too: the compiler writes calls of helpers with numbers from KERNEL_FUNCTION on.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

_LD_IMM64 = 0x18
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
    out, at = bytearray(instructions), 0
    while at < len(out):
        if out[at] != _LD_IMM64:
            if out[at] == _CALL and not out[at + 1] and out[at + 7] & 0x40:
                called = int.from_bytes(out[at + 4 : at + 8], "little") - _KERNEL_FUNCTION
                out[at + 1] |= _PSEUDO_KFUNC_CALL << 4
                out[at + 4 : at + 8] = called.to_bytes(4, "little")
            at += _SLOT
            continue
        if out[at + 1] >> 4 == _NUMBER:
            which = int.from_bytes(out[at + 4 : at + 8], "little")
            value = values[which].to_bytes(8, "little")
            out[at + 1] &= 0x0F
            out[at + 4 : at + 8] = value[:4]
            out[at + 12 : at + 16] = value[4:]
        at += 2 * _SLOT
    return bytes(out)
