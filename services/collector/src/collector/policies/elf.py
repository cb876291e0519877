"""ELF files as uprobes need them: symbols, addresses and offsets, build id, sections.

Little-endian programs and libraries of 64 and 32 bits. The layouts are those of elf.h; a malformed
file raises `ElfError`, never another exception.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from struct import Struct
from struct import error as StructError
from typing import NamedTuple

from collector.policies.elf_go import SECTIONS, GoFunctions
from tracingpolicy.reading.report import nearest


class _Layout(NamedTuple):
    """How a class of ELF files writes what the two write differently."""

    header: Struct
    segment: Struct
    load: tuple[int, int, int]  # places of vaddr, offset and filesz in a segment's row
    section: Struct  # name, type, flags, addr, offset, size, link, info, align, entsize
    symbol: Struct
    entry: tuple[int, int, int, int]  # places of name, info, shndx and value in a symbol's row


_LAYOUTS = {
    b"\x7fELF\x01\x01": _Layout(
        Struct("<16sHHIIIIIHHHHHH"), Struct("<IIIIIIII"), (2, 1, 4), Struct("<IIIIIIIIII"),
        Struct("<IIIBBH"), (0, 3, 5, 1),
    ),
    b"\x7fELF\x02\x01": _Layout(
        Struct("<16sHHIQQQIHHHHHH"), Struct("<IIQQQQQQ"), (3, 2, 5), Struct("<IIQQQQIIQQ"),
        Struct("<IBBHQQ"), (0, 1, 3, 4),
    ),
}  # fmt: skip
_NOTE = Struct("<III")  # namesz, descsz, type
_PT_LOAD = 1
_SHT_SYMTAB, _SHT_NOTE, _SHT_NOBITS, _SHT_DYNSYM = 2, 7, 8, 11
_STT_FUNC, _STT_NOTYPE, _STT_IFUNC = 2, 0, 10
_NT_GNU_BUILD_ID = 3
_MAX_SECTIONS = 4096
_MAX_NAMES = 200_000  # symbols that are compared for a similar name


class ElfError(Exception):
    """The file is no program that can be probed, or lacks the requested part."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section header."""

    name: str
    type: int
    address: int
    offset: int
    size: int
    link: int


@dataclass(frozen=True, slots=True)
class Note:
    """An entry of a note section."""

    owner: bytes
    type: int
    data: bytes


@dataclass(slots=True)
class Elf:
    """A program or library; `close` frees the mapping."""

    path: str
    data: mmap.mmap | bytes
    _layout: _Layout
    _segments: list[tuple[int, int, int]] = field(default_factory=list)  # vaddr, offset, filesz
    _sections: list[Section] = field(default_factory=list)
    _go: list[GoFunctions] | None = None  # read when it is asked for

    @classmethod
    def open(cls, path: str | Path) -> Elf:
        """Map and index a file; raise `ElfError`."""
        try:
            with Path(path).open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ElfError(f"{path}: {error.strerror}") from None
        except ValueError:
            raise ElfError(f"{path}: the file is empty") from None
        return cls.read(data, str(path))

    @classmethod
    def read(cls, data: mmap.mmap | bytes, path: str) -> Elf:
        """Index the bytes of a file; raise `ElfError`."""
        layout = _LAYOUTS.get(bytes(data[:6]))
        if layout is None:
            raise ElfError(f"{path}: not a little-endian ELF file")
        made = cls(path, data, layout)
        try:
            made._index()
        except (StructError, IndexError, ValueError, OverflowError):
            raise ElfError(f"{path}: damaged ELF file") from None
        return made

    def close(self) -> None:
        """Free the mapping."""
        if isinstance(self.data, mmap.mmap):
            self.data.close()

    @property
    def pointer_size(self) -> int:
        """Return the bytes of an address in the program: 4 or 8."""
        return 8 if self._layout is _LAYOUTS[b"\x7fELF\x02\x01"] else 4

    def _index(self) -> None:
        header = self._layout.header.unpack_from(self.data)
        segments_at, sections_at = header[5], header[6]
        segment_size, segment_count, section_size, section_count, names_at = header[9:14]
        for number in range(segment_count):
            row = self._layout.segment.unpack_from(self.data, segments_at + number * segment_size)
            if row[0] == _PT_LOAD:
                address, offset, size = (row[place] for place in self._layout.load)
                self._segments.append((address, offset, size))
        rows = [
            self._layout.section.unpack_from(self.data, sections_at + number * section_size)
            for number in range(min(section_count, _MAX_SECTIONS) if sections_at else 0)
        ]
        if not rows:
            return
        names = rows[names_at]
        for row in rows:
            name = self._text(names[4] + row[0])
            if row[1] != _SHT_NOBITS and row[4] + row[5] > len(self.data):
                raise ValueError("a section behind the end")
            self._sections.append(Section(name, row[1], row[3], row[4], row[5], row[6]))

    def _text(self, at: int) -> str:
        end = self.data.find(b"\0", at)
        if end < 0 or end - at > 4096:
            raise ValueError("unterminated name")
        return self.data[at:end].decode(errors="replace")

    # --- addresses ----------------------------------------------------------------------------

    def offset_of(self, address: int) -> int | None:
        """Return the place in the file of a virtual address; None if it is not loaded from it."""
        for start, offset, size in self._segments:
            if start <= address < start + size:
                return address - start + offset
        return None

    def section(self, name: str) -> bytes | None:
        """Return the bytes of a section; None if there is none, or none in the file."""
        for one in self._sections:
            if one.name == name and one.type != _SHT_NOBITS:
                return self.data[one.offset : one.offset + one.size]
        return None

    def section_address(self, name: str) -> int | None:
        """Return the virtual address of a section."""
        return next((one.address for one in self._sections if one.name == name), None)

    # --- symbols ------------------------------------------------------------------------------

    def symbol(self, name: str) -> int | None:
        """Return the virtual address of a symbol; None if there is none with a value.

        Of a Go program that is stripped: of a function.
        """
        for table, texts in self._tables():
            wanted = self._name_offsets(texts, name)
            if not wanted:
                continue
            for entry, info, index, value in self._entries(table):
                if entry in wanted and index and info & 15 in (_STT_FUNC, _STT_NOTYPE, _STT_IFUNC):
                    return value
        found = (one.address(name) for one in self._go_functions())
        return next((address for address in found if address is not None), None)

    def nearest_symbols(self, name: str) -> list[str]:
        """Return symbols of functions that look like a name."""
        names: dict[str, None] = {}
        for table, texts in self._tables():
            for entry, info, index, _ in self._entries(table):
                if index and info & 15 == _STT_FUNC and len(names) < _MAX_NAMES:
                    try:
                        names[self._text(texts.offset + entry)] = None
                    except ValueError:
                        continue
        for one in self._go_functions():
            names |= dict.fromkeys(islice(one.all_names(), _MAX_NAMES))
        similar = [one for one in names if abs(len(one) - len(name)) <= 8]
        return nearest(name, similar)

    def _go_functions(self) -> list[GoFunctions]:
        if self._go is None:
            text = self.section_address(".text") or 0
            sections = (self.section(name) for name in SECTIONS)
            tables = (GoFunctions.read(one, text) for one in sections if one)
            self._go = [table for table in tables if table is not None]
        return self._go

    def _tables(self) -> Iterator[tuple[Section, Section]]:
        for one in self._sections:
            if one.type in (_SHT_SYMTAB, _SHT_DYNSYM) and one.link < len(self._sections):
                yield one, self._sections[one.link]

    def _entries(self, table: Section) -> Iterator[tuple[int, int, int, int]]:
        """Yield name, info, section and value of each symbol."""
        row, (name, info, section, value) = self._layout.symbol, self._layout.entry
        data = self.data[table.offset : table.offset + table.size]
        for one in row.iter_unpack(data[: len(data) - len(data) % row.size]):
            yield one[name], one[info], one[section], one[value]

    def _name_offsets(self, texts: Section, name: str) -> set[int]:
        """Return where a name begins in a string table; linkers share the tails of longer ones."""
        needle, end = name.encode(errors="surrogatepass") + b"\0", texts.offset + texts.size
        found, at = set(), self.data.find(needle, texts.offset, end)
        while at >= 0:
            found.add(at - texts.offset)
            at = self.data.find(needle, at + 1, end)
        return found

    # --- notes --------------------------------------------------------------------------------

    def notes(self, name: str = "") -> Iterator[Note]:
        """Return the notes of all note sections, or of one."""
        for one in self._sections:
            if one.type == _SHT_NOTE and name in ("", one.name):
                yield from _notes(self.data[one.offset : one.offset + one.size])

    def build_id(self) -> bytes:
        """Return the build id that the linker wrote, b"" if there is none."""
        for note in self.notes():
            if note.owner == b"GNU" and note.type == _NT_GNU_BUILD_ID:
                return note.data
        return b""

    def digest(self, algorithm: str) -> bytes:
        """Return the digest of the whole file: sha1, sha256, sha384 or sha512."""
        return hashlib.new(algorithm, self.data, usedforsecurity=False).digest()


def _notes(data: bytes) -> Iterator[Note]:
    at = 0
    while at + _NOTE.size <= len(data):
        owner_size, size, kind = _NOTE.unpack_from(data, at)
        start = at + _NOTE.size
        body = start + (owner_size + 3) // 4 * 4
        if body + size > len(data):
            return
        yield Note(data[start : start + owner_size].rstrip(b"\0"), kind, data[body : body + size])
        at = body + (size + 3) // 4 * 4
