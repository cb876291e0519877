"""Function symbols and build id of an ELF file, in arrays: a large program has 100,000 of them."""

from __future__ import annotations

import os
import stat
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from struct import error as StructError
from typing import Literal, NamedTuple

# A larger symbol table stays unread: this one takes some 0.2 s in the event loop.
_TABLE_MAX_BYTES = 4 << 20
_TEXTS_MAX_BYTES = 16 << 20
_NOTE_MAX_BYTES = 4096
_HEADERS_MAX_BYTES = 1 << 20

_SYMTAB, _DYNSYM, _NOTE = 2, 11, 7  # sh_type
_LOAD = 1  # p_type
_FUNC, _IFUNC = 2, 10  # symbol types
_BUILD_ID = 3  # note type of name "GNU"


class _Layout(NamedTuple):
    """Where the fields are that the two classes of ELF files keep in different places."""

    header: Struct  # phoff, shoff from byte 32 (64 bit) or 28 (32 bit)
    header_at: int
    counts_at: int
    section: Struct
    program: Struct
    symbol_words: Literal["I", "Q"]


_LAYOUTS = {
    1: _Layout(Struct("<II"), 28, 42, Struct("<IIIIIIIIII"), Struct("<IIIIIIII"), "I"),
    2: _Layout(Struct("<QQ"), 32, 54, Struct("<IIQQQQIIQQ"), Struct("<IIQQQQQQ"), "Q"),
}
_COUNTS = Struct("<HHHH")  # phentsize, phnum, shentsize, shnum
_NOTE_HEADER = Struct("<III")


@dataclass(frozen=True, slots=True)
class ElfSymbols:
    """Functions by address, in the order of addresses."""

    build_id: bytes
    segments: tuple[tuple[int, int, int], ...]  # file offset, size, virtual address
    values: array[int]
    sizes: array[int]
    ranks: array[int]  # place in the file's tables: of several names the first is shown
    names: array[int]  # offset in `texts`
    texts: bytes

    @property
    def size_bytes(self) -> int:
        """Memory that the symbols take, about."""
        return len(self.texts) + 28 * len(self.values)

    def find(self, offset: int) -> bytes:
        """Return the name of the function at a file offset, empty if there is none."""
        address = next(
            (offset - o + v for o, size, v in self.segments if o <= offset < o + size), None
        )
        if address is None:
            return b""
        at = bisect_right(self.values, address) - 1
        best, looked_at = -1, 0
        while at >= 0 and looked_at < 16:
            if address < self.values[at] + self.sizes[at]:
                if best >= 0 and self.values[at] != self.values[best]:
                    break
                if best < 0 or self.ranks[at] < self.ranks[best]:
                    best = at
            at, looked_at = at - 1, looked_at + 1
        if best < 0:
            return b""
        start = self.names[best]
        return self.texts[start : self.texts.find(b"\0", start)]


def read_symbols(path: Path) -> ElfSymbols | None:
    """Return the symbols of a file; None where there is none, or no ELF file of little endian."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return _read(file)
    except (OSError, StructError, ValueError, IndexError, OverflowError):
        return None  # damaged, or it is being written
    finally:
        os.close(file)


def _read(file: int) -> ElfSymbols | None:
    if not stat.S_ISREG(os.fstat(file).st_mode):
        return None
    head = os.pread(file, 64, 0)
    if head[:4] != b"\x7fELF" or head[4] not in _LAYOUTS or head[5] != 1:
        return None
    layout = _LAYOUTS[head[4]]
    programs_at, sections_at = layout.header.unpack_from(head, layout.header_at)
    program_size, programs, section_size, sections = _COUNTS.unpack_from(head, layout.counts_at)
    segments = []
    for entry in _entries(file, layout.program, programs_at, program_size, programs):
        if layout.symbol_words == "Q":
            kind, _, offset, address, _, size, *_ = entry
        else:
            kind, offset, address, _, size, *_ = entry
        if kind == _LOAD:
            segments.append((offset, size, address))
    headers = list(_entries(file, layout.section, sections_at, section_size, sections))
    build_id, tables, texts = b"", [], b""
    for kind in (_SYMTAB, _DYNSYM, _NOTE):
        for section in (one for one in headers if one[1] == kind):
            offset, size, link = section[4], section[5], section[6]
            if kind == _NOTE:
                build_id = build_id or _build_id(os.pread(file, min(size, _NOTE_MAX_BYTES), offset))
            elif size <= _TABLE_MAX_BYTES and headers[link][5] <= _TEXTS_MAX_BYTES:
                data = os.pread(file, size, offset)
                tables.append((data, len(texts)))
                texts += os.pread(file, headers[link][5], headers[link][4]) + b"\0"
    symbols = sorted(_functions(tables, layout.symbol_words))
    return ElfSymbols(
        build_id,
        tuple(segments),
        array("Q", [one[0] for one in symbols]),
        array("Q", [one[2] for one in symbols]),
        array("I", [one[1] for one in symbols]),
        array("Q", [one[3] for one in symbols]),
        texts,
    )


def _entries(
    file: int, struct: Struct, offset: int, size: int, count: int
) -> Iterator[tuple[int, ...]]:
    if size < struct.size or size * count > _HEADERS_MAX_BYTES:
        return
    data = os.pread(file, size * count, offset)
    for at in range(0, len(data) - struct.size + 1, size):
        yield struct.unpack_from(data, at)


def _functions(
    tables: list[tuple[bytes, int]], words: Literal["I", "Q"]
) -> Iterator[tuple[int, int, int, int]]:
    """Return (address, rank, size, name) of each function."""
    rank = 0
    for data, base in tables:
        step = 24 if words == "Q" else 16
        view = memoryview(data)[: len(data) // step * step].cast(words)
        if words == "Q":  # Elf64_Sym: name 4, info 1, other 1, section 2, value 8, size 8
            columns = zip(
                view[0::3].tolist(), view[1::3].tolist(), view[2::3].tolist(), strict=True
            )
            rows = ((w & 0xFFFFFFFF, w >> 32 & 15, w >> 48, v, s) for w, v, s in columns)
        else:  # Elf32_Sym: name 4, value 4, size 4, info 1, other 1, section 2
            quads = zip(*(view[n::4].tolist() for n in range(4)), strict=True)
            rows = ((n, w & 15, w >> 16, v, s) for n, v, s, w in quads)
        for name, kind, section, value, size in rows:
            rank += 1
            if kind in (_FUNC, _IFUNC) and section and size:
                yield value, rank, size, base + name


def _build_id(data: bytes) -> bytes:
    at = 0
    while at + _NOTE_HEADER.size <= len(data):
        name_size, size, kind = _NOTE_HEADER.unpack_from(data, at)
        name_at = at + _NOTE_HEADER.size
        value_at = name_at + (name_size + 3 & ~3)
        if kind == _BUILD_ID and data[name_at : name_at + 4] == b"GNU\0":
            return data[value_at : value_at + size]
        at = value_at + (size + 3 & ~3)
    return b""
