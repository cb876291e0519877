"""The automaton of SubString: Aho-Corasick, with bytes grouped into classes.

Layout, as ``contains`` of bpf/tracing/text.h reads it: u8 classes[256], then u16 next[], of state
and class, padded to a power of two. The accepting state is the last and is never left.
"""

from __future__ import annotations

import array
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Automaton:
    """Finds any of some texts in one pass."""

    byte_classes: bytes  # 256: the class of each byte; 0: in no text
    next: tuple[int, ...]  # of state * classes + class
    accepting: int

    @property
    def classes(self) -> int:
        """How many classes of bytes there are."""
        return max(self.byte_classes) + 1

    @property
    def mask(self) -> int:
        """Bounds an index into ``next``: its size, rounded up to a power of two, less 1."""
        return (1 << (len(self.next) - 1).bit_length()) - 1

    def table(self) -> bytes:
        """Return the value of the automaton's map."""
        padded = array.array("H", [*self.next, *[0] * (self.mask + 1 - len(self.next))])
        return self.byte_classes + padded.tobytes()

    def matches(self, text: bytes) -> bool:
        """Run it."""
        state = 0
        for byte in text:
            state = self.next[state * self.classes + self.byte_classes[byte]]
        return state == self.accepting

    @classmethod
    def of(cls, texts: Iterable[bytes], *, ignore_case: bool = False) -> Automaton:
        """Build it; an empty text is found everywhere."""
        wanted = [text.lower() if ignore_case else text for text in texts]
        used = sorted({byte for text in wanted for byte in text})
        classes = bytearray(256)
        for number, byte in enumerate(used, 1):
            classes[byte] = number
            if ignore_case:
                classes[ord(bytes([byte]).upper())] = number
        count = len(used) + 1
        trie, ends = _trie(wanted, classes, count)
        return cls(bytes(classes), *_close(trie, ends, count))


def _trie(
    wanted: list[bytes], classes: bytearray, count: int
) -> tuple[list[list[int]], list[bool]]:
    """Return the trie's edges by class, -1 for none, and which nodes end a text."""
    trie, ends = [[-1] * count], [False]
    for text in wanted:
        node = 0
        for byte in text:
            if trie[node][classes[byte]] < 0:
                trie[node][classes[byte]] = len(trie)
                trie.append([-1] * count)
                ends.append(False)
            node = trie[node][classes[byte]]
        ends[node] = True
    return trie, ends


def _close(trie: list[list[int]], ends: list[bool], count: int) -> tuple[tuple[int, ...], int]:
    """Return the complete transitions with one accepting state at the end."""
    back = [0] * len(trie)
    queue = deque([0])
    while queue:
        node = queue.popleft()
        ends[node] = ends[node] or ends[back[node]]
        for byte_class in range(count):
            child = trie[node][byte_class]
            behind = trie[back[node]][byte_class] if node else 0
            if child < 0:
                trie[node][byte_class] = max(behind, 0)
            else:
                back[child] = behind if node else 0
                queue.append(child)
    kept = [node for node in range(len(trie)) if not ends[node]]
    if ends[0]:
        return (0,) * count, 0  # an empty text is in every text
    number = {node: place for place, node in enumerate(kept)}
    accepting = len(kept)
    rows = [number.get(target, accepting) for node in kept for target in trie[node]]
    return (*rows, *[accepting] * count), accepting
