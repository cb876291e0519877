"""Compiled programs as they are cached: bytecode, the maps that it uses, and the places where it
uses them.

An `Object` knows nothing of descriptors: `relocate` writes them into a copy. Its form on disk is
lengths and bytes only, nothing in it is ever executed or evaluated by Python.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from collector.bpf.maps import MapSpec, MapType
from collector.bpf.programs import Kind

_SLOT = 8  # bytes of one instruction
_LD_IMM64 = 0x18  # BPF_LD | BPF_DW | BPF_IMM: takes two slots
# BPF_PSEUDO_CALL to offset -1: the compiler emits this for a function that is not in the text.
_CALL_UNRESOLVED = bytes.fromhex("85100000ffffffff")
_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE = 1, 2  # in the source register


class Relocation(NamedTuple):
    """The instruction at ``offset`` bytes names map number ``map``."""

    offset: int
    map: int


class ProgramPlan(NamedTuple):
    """A function of the C text and how it runs; ``target`` as `links.attach` takes it."""

    name: str
    kind: Kind
    target: str = ""
    attach_btf_id: int = 0  # of the target, for kinds in BOUND_BY_BTF
    sleepable: bool = False


class ProgramCode(NamedTuple):
    """One compiled program."""

    plan: ProgramPlan
    instructions: bytes
    relocations: tuple[Relocation, ...]


@dataclass(frozen=True, slots=True)
class Object:
    """What one compilation gave: programs and the maps that they name, by number."""

    maps: tuple[MapSpec, ...]
    programs: tuple[ProgramCode, ...]


def loads_of_16_bytes(instructions: bytes) -> Iterator[int]:
    """Yield the places of these loads; what follows one has the code 0."""
    codes, at = instructions[::_SLOT], -1
    while (at := codes.find(_LD_IMM64, at + 1)) >= 0:
        yield at * _SLOT


def relocations(instructions: bytes, maps: int) -> tuple[Relocation, ...]:
    """Return where bytecode names one of ``maps`` maps; raise ValueError for any other number."""
    if len(instructions) % _SLOT:
        raise ValueError(f"bytecode: {len(instructions)} bytes: not whole instructions")
    at = instructions.find(_CALL_UNRESOLVED)
    while at >= 0:
        if at % _SLOT == 0:
            raise ValueError(f"bytecode: instruction {at // _SLOT}: a call of an unknown function")
        at = instructions.find(_CALL_UNRESOLVED, at + 1)
    found = list[Relocation]()
    for at in loads_of_16_bytes(instructions):
        if instructions[at + 1] >> 4 in (_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE):
            number = int.from_bytes(instructions[at + 4 : at + 8], "little")
            if number >= maps:
                raise ValueError(f"bytecode: instruction {at // _SLOT}: no map {number}")
            found.append(Relocation(at, number))
    return tuple(found)


def relocate(code: ProgramCode, fds: Sequence[int]) -> bytes:
    """Return the instructions with descriptors in place of map numbers."""
    out = bytearray(code.instructions)
    for offset, number in code.relocations:
        out[offset + 4 : offset + 8] = fds[number].to_bytes(4, "little")
    return bytes(out)


def assemble(
    maps: Sequence[MapSpec], plans: Sequence[ProgramPlan], codes: Mapping[str, bytes]
) -> Object:
    """Return what the compiler gave for these plans as an object; raise ValueError."""
    programs = [
        ProgramCode(plan, codes[plan.name], relocations(codes[plan.name], len(maps)))
        for plan in plans
    ]
    return Object(tuple(maps), tuple(programs))


def encode(built: Object) -> bytes:
    """Return the bytes that `decode` reads: a JSON head, its length first, then all bytecode."""
    head = {
        "maps": [[*spec] for spec in built.maps],
        "programs": [[*code.plan, len(code.instructions)] for code in built.programs],
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    return b"".join(
        [len(text).to_bytes(4, "little"), text, *(code.instructions for code in built.programs)]
    )


def decode(data: bytes) -> Object:
    """Return the object in ``data``; raise ValueError if it is not one."""
    try:
        size = int.from_bytes(data[:4], "little")
        head: dict[str, Any] = json.loads(data[4 : 4 + size])
        maps = tuple(
            MapSpec(name, MapType(type_), key, value, entries, flags, tuple(filled))
            for name, type_, key, value, entries, flags, filled in head["maps"]
        )
        at, programs = 4 + size, list[ProgramCode]()
        for name, kind, target, btf_id, sleepable, length in head["programs"]:
            code = data[at : at + length]
            plan = ProgramPlan(name, Kind(kind), target, btf_id, sleepable)
            programs.append(ProgramCode(plan, code, relocations(code, len(maps))))
            at += length
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"object: {error}") from None
    if at != len(data):
        raise ValueError(f"object: {len(data)} bytes, {at} expected")
    return Object(maps, tuple(programs))
