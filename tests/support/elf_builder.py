"""A tiny ELF program with one USDT probe, without a compiler."""

from __future__ import annotations

from pathlib import Path
from struct import pack

_ADDRESS, _HEADER, _SEGMENT, _SECTION = 0x400000, 64, 56, 64
_PT_LOAD, _SHT_STRTAB, _SHT_NOTE = 1, 3, 7
_STAPSDT = 3


def write_program(path: Path, provider: str, name: str, arguments: str) -> Path:
    """Write the program and return its path; the probe is its first instruction."""
    code = _HEADER + _SEGMENT
    texts = b"\0".join(one.encode() for one in (provider, name, arguments)) + b"\0"
    body = pack("<QQQ", _ADDRESS + code, 0, 0) + texts
    note = pack("<III", 8, len(body), _STAPSDT) + b"stapsdt\0" + body.ljust((len(body) + 3) & ~3)
    names = b"\0.note.stapsdt\0.shstrtab\0"
    at = code + 8  # eight bytes of code
    sections = (
        pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        + pack("<IIQQQQIIQQ", 1, _SHT_NOTE, 0, 0, at, len(note), 0, 0, 4, 0)
        + pack("<IIQQQQIIQQ", 15, _SHT_STRTAB, 0, 0, at + len(note), len(names), 0, 0, 1, 0)
    )
    table = at + len(note) + len(names)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, _ADDRESS + code, _HEADER, table, 0, _HEADER, _SEGMENT, 1,
        _SECTION, 3, 2,
    )  # fmt: skip
    segment = pack("<IIQQQQQQ", _PT_LOAD, 5, 0, _ADDRESS, _ADDRESS, table, table, 0x1000)
    path.write_bytes(header + segment + b"\x90" * 8 + note + names + sections)
    return path
