"""Typed access to a mapping of the document; what does not fit becomes a mistake.

Reading continues after a mistake with the default, so that one pass finds all of them. ``null`` is
the same as an absent key, as in Kubernetes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from typing import TypeVar

from tracingpolicy.position import Place, Position
from tracingpolicy.reading.document import Kind, Node
from tracingpolicy.reading.report import Report, quoted, suggestion

E = TypeVar("E", bound=Enum)
T = TypeVar("T")
U32 = 0xFFFF_FFFF
U64 = 0xFFFF_FFFF_FFFF_FFFF
_QUOTE = {Kind.INT, Kind.FLOAT, Kind.BOOL}


class Fields:
    """The entries of one mapping that may have ``keys`` and must have ``required``."""

    def __init__(
        self,
        report: Report,
        node: Node,
        path: str,
        keys: Collection[str],
        required: Iterable[str] = (),
    ) -> None:
        self.report, self.node, self.path = report, node, path
        self._failed: set[str] = set()
        self.entries: dict[str, Node] = {}
        if node.kind is not Kind.MAPPING:
            self.wrong(node, path, "a mapping")
            return
        for name, (position, value) in node.entries.items():
            if name not in keys:
                where = position if position.line else value.position
                message = f"{path}: unknown key {quoted(name)}{suggestion(name, keys)}"
                report.add(where, message, ", ".join(sorted(keys)))
            elif value.kind is not Kind.NULL:
                self.entries[name] = value
        for name in required:
            if name not in self.entries:
                entry = node.entries.get(name)
                where = entry[1].position if entry else node.position
                report.add(where, f"{path}: {name} is missing")

    def wrong(self, node: Node, path: str, wanted: str) -> None:
        """Note a value of another kind than is wanted."""
        if wanted == "a text" and node.kind in _QUOTE:
            message = f'{path}: {node.text} is {node.kind.value}, not a text: write "{node.text}"'
            self.report.add(node.position, message)
        elif node.kind is Kind.TEXT and wanted in ("a number", "true or false"):
            message = f"{path}: {quoted(node.text)} is a text, not {wanted}: leave the quotes out"
            self.report.add(node.position, message, wanted)
        else:
            self.report.add(node.position, f"{path}: this is {node.kind.value}", wanted)

    def doubt(self, message: str, *key: str) -> None:
        """Note that a key, or the whole mapping, hardly does what its author meant."""
        self.report.doubt(f"{'.'.join((self.path, *key))}: {message}")

    def fail(self, message: str, key: str = "", allowed: str = "") -> None:
        """Note a mistake at the value of a key, or at the mapping."""
        path = f"{self.path}.{key}" if key else self.path
        self._failed.add(key)
        self.report.add(self.position(key), f"{path}: {message}", allowed)

    def failed(self, key: str) -> bool:
        """Return whether the value of the key was refused."""
        return key in self._failed

    def position(self, key: str = "") -> Position:
        """Return where the value of a key begins, or the mapping if it is absent."""
        return self.entries[key].position if key in self.entries else self.node.position

    def place(self) -> Place:
        """Return the positions of the mapping, of its values, and of the elements of its lists."""
        keys: list[tuple[str, Position]] = []
        for name, node in self.entries.items():
            keys.append((name, node.position))
            if node.kind is Kind.LIST:
                keys += [(f"{name}.{i}", item.position) for i, item in enumerate(node.items)]
            elif node.kind is Kind.MAPPING:
                keys += [(f"{name}.{k}", value.position) for k, (_, value) in node.entries.items()]
        return Place(self.node.position, tuple(keys))

    def has(self, key: str) -> bool:
        """Return whether the key has a value."""
        return key in self.entries

    def given(self, key: str) -> bool:
        """Return whether the key has a value and, if it was read, that value was accepted."""
        return key in self.entries and key not in self._failed

    def not_empty(self, key: str) -> None:
        """Refuse an empty text."""
        if not self.text(key) and self.given(key):
            self.fail("the text is empty", key)

    # --- values -------------------------------------------------------------------------------

    def text(self, key: str, default: str = "") -> str:
        """Return a text; a number or truth value without quotes is a mistake."""
        node = self.entries.get(key)
        if node is None:
            return default
        if node.kind is not Kind.TEXT:
            self._wrong(key, node, "a text")
            return default
        return node.text

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a truth value."""
        node = self.entries.get(key)
        if node is None:
            return default
        if not isinstance(node.value, bool):
            self._wrong(key, node, "true or false")
            return default
        return node.value

    def number(self, key: str, default: int = 0, low: int = 0, high: int = U32) -> int:
        """Return a whole number from low to high."""
        node = self.entries.get(key)
        if node is None:
            return default
        number = self._number(node, f"{self.path}.{key}", low, high)
        if number is None:
            self._failed.add(key)
            return default
        return number

    def choice(self, key: str, names: Mapping[str, T], default: T, what: str) -> T:
        """Return what one of the names stands for."""
        node = self.entries.get(key)
        if node is None:
            return default
        word = self.text(key)
        if key in self._failed:
            return default
        if word not in names:
            message = f"{quoted(word)} is not {what}{suggestion(word, names)}"
            self.fail(message, key, ", ".join(name or '""' for name in names))
            return default
        return names[word]

    def member(self, key: str, members: type[E], default: E, what: str) -> E:
        """Return a member of an enumeration whose values are the names."""
        return self.choice(key, {str(one.value): one for one in members}, default, what)

    # --- lists --------------------------------------------------------------------------------

    def items(self, key: str) -> list[tuple[str, Node]]:
        """Return the elements of a list, each with its path."""
        node = self.entries.get(key)
        if node is None:
            return []
        if node.kind is not Kind.LIST:
            self._wrong(key, node, "a list")
            return []
        return [(f"{self.path}.{key}[{i}]", item) for i, item in enumerate(node.items)]

    def texts(self, key: str) -> list[tuple[str, Node]]:
        """Return the texts of a list; refused ones are left out."""
        found = []
        for path, node in self.items(key):
            if node.kind is Kind.TEXT:
                found.append((node.text, node))
            else:
                self._failed.add(key)
                self.wrong(node, path, "a text")
        return found

    def numbers(self, key: str, high: int = U32) -> list[tuple[int, Node]]:
        """Return the whole numbers from 0 to high of a list; refused ones are left out."""
        found = []
        for path, node in self.items(key):
            number = self._number(node, path, 0, high)
            if number is None:
                self._failed.add(key)
            else:
                found.append((number, node))
        return found

    def each(self, key: str, read: Callable[[Node, str], T | None]) -> tuple[T, ...]:
        """Return what ``read`` makes of every element of a list, without None."""
        made = [read(node, path) for path, node in self.items(key)]
        return tuple(one for one in made if one is not None)

    def mapping(self, key: str) -> dict[str, tuple[Position, Node]]:
        """Return the entries of a mapping of any keys."""
        node = self.entries.get(key)
        if node is None:
            return {}
        if node.kind is not Kind.MAPPING:
            self._wrong(key, node, "a mapping")
            return {}
        return node.entries

    def _number(self, node: Node, path: str, low: int, high: int) -> int | None:
        if node.kind is not Kind.INT or not isinstance(node.value, int):
            self.wrong(node, path, "a number")
            return None
        if not low <= node.value <= high:
            self.report.add(
                node.position, f"{path}: {node.text} is too {_far(node, low)}", f"{low} to {high}"
            )
            return None
        return node.value

    def _wrong(self, key: str, node: Node, wanted: str) -> None:
        self._failed.add(key)
        self.wrong(node, f"{self.path}.{key}", wanted)


def _far(node: Node, low: int) -> str:
    return "small" if isinstance(node.value, int) and node.value < low else "large"
