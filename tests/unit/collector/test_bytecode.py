"""Compiled objects: map numbers become descriptors, and nothing but a whole object is accepted."""

import pytest

from collector.bpf.bytecode import (
    ProgramPlan,
    Relocation,
    assemble,
    decode,
    encode,
    relocate,
)
from collector.bpf.maps import MapSpec, MapType
from collector.bpf.programs import Kind

MAPS = (
    MapSpec("events", MapType.RINGBUF, 0, 0, 4096),
    MapSpec("stages", MapType.PROG_ARRAY, 4, 4, 2, 0, ("hook",)),
)
RETURN_0 = bytes.fromhex("b700000000000000 9500000000000000")


def load_map(number, source=1):
    """Return the instruction that names a map (16 bytes)."""
    return bytes([0x18, source << 4 | 1, 0, 0]) + number.to_bytes(4, "little") + bytes(8)


def built(code):
    plan = ProgramPlan("hook", Kind.RAW_TRACEPOINT, "sched_process_exec")
    return assemble(MAPS, [plan], {"hook": code})


def test_numbers_become_descriptors():
    constant = load_map(1, source=0)  # a number of 64 bits, not a map
    built_object = built(load_map(1) + constant + load_map(0, source=2) + RETURN_0)
    [code] = built_object.programs
    assert code.relocations == (Relocation(0, 1), Relocation(32, 0))
    assert relocate(code, [300, 7]) == load_map(7) + constant + load_map(300, 2) + RETURN_0
    assert code.instructions[4] == 1  # a copy was changed


def test_map_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="instruction 2: no map 2"):
        built(RETURN_0 + load_map(2))


def test_half_an_instruction_is_refused():
    with pytest.raises(ValueError, match="not whole instructions"):
        built(RETURN_0[:-1])


def test_call_of_a_function_that_was_not_compiled_is_refused():
    with pytest.raises(ValueError, match="instruction 2: a call of an unknown function"):
        built(RETURN_0 + bytes.fromhex("85100000ffffffff"))


def test_object_survives_its_form_on_disk():
    built_object = built(load_map(1) + RETURN_0)
    assert decode(encode(built_object)) == built_object


def test_anything_else_is_refused():
    data = encode(built(load_map(1) + RETURN_0))
    for end in range(len(data)):
        with pytest.raises(ValueError, match="object: "):
            decode(data[:end])
    with pytest.raises(ValueError, match="object: "):
        decode(data + b"\0")
    with pytest.raises(ValueError, match="object: "):
        decode(data.replace(b"raw_tracepoint", b"raw_tracepoinT"))
