"""Functions of Go programs by the table that the Go runtime unwinds stacks with.

Go keeps it in programs that are stripped. Its forms are those of Go 1.2, 1.16, 1.18 and 1.20 (Go's
debug/gosym/pclntab.go): a header of words, a table of (address, place) pairs, and at each place the
function's name as an offset into a table of names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError

SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")  # the other: position-independent
_OLDEST, _WITH_OFFSETS = 0xFFFFFFFB, (0xFFFFFFFA, 0xFFFFFFF0, 0xFFFFFFF1)  # Go 1.2; 1.16, ...
_HEAD = Struct("<IHBB")  # magic, zero, quantum of instructions, size of a pointer
_U32 = Struct("<I")
_MAX_FUNCTIONS = 2_000_000


@dataclass(frozen=True, slots=True)
class GoFunctions:
    """The table of one program."""

    data: bytes
    names: int  # where the table of names begins
    places: int  # what the pairs' places count from
    pairs: int  # where the pairs begin
    count: int
    pair: Struct
    entry_size: int  # of the address that a function's record begins with
    text: int  # what the pairs' addresses count from

    @classmethod
    def read(cls, data: bytes, text: int) -> GoFunctions | None:
        """Read a section; None if its form is unknown. ``text`` is the address of .text."""
        try:
            magic, _, _, size = _HEAD.unpack_from(data)
            if size not in (4, 8):
                return None
            word = Struct("<Q" if size == 8 else "<I")

            def field(number: int) -> int:
                return int(word.unpack_from(data, _HEAD.size + number * size)[0])

            if magic == _OLDEST:
                pair, count = Struct("<QQ" if size == 8 else "<II"), field(0)
                made = cls(data, 0, 0, _HEAD.size + size, count, pair, size, 0)
            elif magic == _WITH_OFFSETS[0]:
                pair, count, places = Struct("<QQ" if size == 8 else "<II"), field(0), field(6)
                made = cls(data, field(2), places, places, count, pair, size, 0)
            elif magic in _WITH_OFFSETS:
                # field(2), the start of the code, is zero where a loader would write it.
                count, places = field(0), field(7)
                start = field(2) or text
                made = cls(data, field(3), places, places, count, Struct("<II"), 4, start)
            else:
                return None
        except (StructError, OverflowError):
            return None
        return made if made.count <= _MAX_FUNCTIONS else None

    def address(self, name: str) -> int | None:
        """Return the virtual address of a function; None if there is none."""
        wanted, needle = set(), b"\0" + name.encode(errors="surrogatepass") + b"\0"
        at = self.data.find(needle, self.names)
        while at >= 0:
            wanted.add(at + 1 - self.names)
            at = self.data.find(needle, at + 1)
        if not wanted:
            return None
        return next((address for address, place in self._functions() if place in wanted), None)

    def all_names(self) -> Iterator[str]:
        """Yield the names of all functions."""
        for _, place in self._functions():
            start = self.names + place
            end = self.data.find(b"\0", start, start + 4096)
            if end >= 0:
                yield self.data[start:end].decode(errors="replace")

    def _functions(self) -> Iterator[tuple[int, int]]:
        """Yield address and place of the name of each function."""
        end = self.pairs + self.count * self.pair.size
        if end > len(self.data):
            return
        for address, place in self.pair.iter_unpack(self.data[self.pairs : end]):
            try:
                (name,) = _U32.unpack_from(self.data, self.places + place + self.entry_size)
            except (StructError, OverflowError):
                return  # damaged
            yield address + self.text, name
