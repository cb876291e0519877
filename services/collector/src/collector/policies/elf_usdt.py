"""USDT probes of a program: the notes that <sys/sdt.h> leaves, and their argument specifications.

The form is SystemTap's (UserSpaceProbeImplementation): an argument is ``SIZE@PLACE``, a negative
size is signed, the place is assembler text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from collector.policies.elf import Elf
from collector.policies.plan import Constant, ProgramMemory, ProgramRegister, Source
from collector.policies.plan_registers import saved_register

_NOTE_TYPE = 3
_ADDRESSES = {4: Struct("<III"), 8: Struct("<QQQ")}  # place, base, semaphore
_ARGUMENT = re.compile(r"(?:(?P<size>-?[1248])f?@)?(?P<place>.+)\Z")
_X86_MEMORY = re.compile(
    r"(?P<offset>[-+]?(?:0x[0-9a-fA-F]+|\d+)?)\(%(?P<base>\w+)"
    r"(?:,\s*%(?P<index>\w+)(?:,\s*(?P<scale>[1248]))?)?\)\Z"
)
_ARM_MEMORY = re.compile(r"\[(?P<base>\w+)(?:,\s*#?(?P<offset>-?\d+))?\]\Z")
_NUMBER = re.compile(r"[-+]?(?:0x[0-9a-fA-F]+|\d+)\Z")


@dataclass(frozen=True, slots=True)
class Location:
    """One place of a probe; the arguments can be in other registers at each place."""

    offset: int  # in the file
    semaphore: int  # offset in the file of the counter to raise, 0: none
    arguments: tuple[str, ...]


def locations(elf: Elf, provider: str, name: str) -> list[Location]:
    """Return the places of a probe."""
    return [place for owner, probe, place in _probes(elf) if (owner, probe) == (provider, name)]


def probe_names(elf: Elf) -> list[str]:
    """Return all probes as ``provider/name``."""
    return sorted({f"{owner}/{probe}" for owner, probe, _ in _probes(elf)})


def _probes(elf: Elf) -> Iterator[tuple[str, str, Location]]:
    base_address = elf.section_address(".stapsdt.base")
    addresses = _ADDRESSES[elf.pointer_size]
    for note in elf.notes(".note.stapsdt"):
        if note.owner != b"stapsdt" or note.type != _NOTE_TYPE or len(note.data) < addresses.size:
            continue
        place, base, semaphore = addresses.unpack_from(note.data)
        texts = note.data[addresses.size :].split(b"\0")
        if len(texts) < 3:
            continue
        provider, probe, arguments = (text.decode(errors="replace") for text in texts[:3])
        # A prelinked file is loaded elsewhere than the notes say; .stapsdt.base moved with it.
        moved = base_address - base if base_address is not None else 0
        offset = elf.offset_of(place + moved)
        if offset is None:
            continue
        counter = elf.offset_of(semaphore + moved) if semaphore else 0
        yield provider, probe, Location(offset, counter or 0, split_arguments(arguments))


def split_arguments(text: str) -> tuple[str, ...]:
    """Return the specifications in a note, which are separated by blanks; ``[sp, 16]`` has one."""
    return tuple(re.findall(r"(?:\[[^\]]*\]|\([^)]*\)|\S)+", text))


def source_of(machine: str, text: str) -> tuple[Source, int, bool] | None:
    """Return where an argument is, its size and whether it is signed; None if not understood."""
    match = _ARGUMENT.match(text)
    if match is None:
        return None
    width = int(match["size"] or 8)
    size, signed, place = abs(width), width < 0, match["place"]
    source = (_x86 if machine == "x86_64" else _arm64)(machine, place, size, signed)
    return (source, size, signed) if source is not None else None


def _x86(machine: str, place: str, size: int, signed: bool) -> Source | None:
    if place.startswith("$") and _NUMBER.match(place[1:]):
        return Constant(int(place[1:], 0))
    if place.startswith("%"):
        register = saved_register(machine, place[1:])
        return ProgramRegister(register.offset, size, signed) if register else None
    match = _X86_MEMORY.match(place)
    if match is None:
        return None
    base = saved_register(machine, match["base"])
    index = saved_register(machine, match["index"]) if match["index"] else None
    if base is None or match["base"] == "rip" or (match["index"] and index is None):
        return None
    text = match["offset"]
    offset = int(text, 0) if text not in ("", "-", "+") else 0
    return ProgramMemory(
        base.offset, offset, size, signed, index.offset if index else None, int(match["scale"] or 1)
    )


def _arm64(machine: str, place: str, size: int, signed: bool) -> Source | None:
    if _NUMBER.match(place):
        return Constant(int(place, 0))
    match = _ARM_MEMORY.match(place)
    if match is None:
        register = saved_register(machine, place)
        return ProgramRegister(register.offset, size, signed) if register else None
    base = saved_register(machine, match["base"])
    return ProgramMemory(base.offset, int(match["offset"] or 0), size, signed) if base else None
