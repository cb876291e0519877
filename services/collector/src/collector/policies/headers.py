"""Headers of bpf/tracing and bpf/lib that a text includes, without functions that it never calls.

BCC parses a text three times, so a short text compiles faster. Every line keeps
its number, and names in messages of the compiler are those of the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

_INCLUDE = re.compile(r'^#include "([\w.]+)"\n', re.MULTILINE)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_FUNCTION = re.compile(r"^static __always_inline .*?^}$", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"(\w+)\(")
_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(")


class _Piece(NamedTuple):
    """A part of a header; it has a name if it is a function."""

    text: str
    name: str
    calls: frozenset[str]


class _Header(NamedTuple):
    includes: tuple[str, ...]
    pieces: tuple[_Piece, ...]


def expanded(names: Iterable[str], body: str, folder: Path) -> str:
    """Return the text of headers and what they include, each once, as far as ``body`` needs it."""
    found: dict[str, _Header] = {}

    def collect(name: str) -> None:
        if name in found:
            return
        path = next(p for p in (folder / "tracing" / name, folder / "lib" / name) if p.exists())
        header = _read(path, path.stat().st_mtime_ns)
        found[name] = _Header((), ())  # keeps the place of a header that includes itself
        for one in header.includes:
            collect(one)
        del found[name]
        found[name] = header

    for name in names:
        collect(name)
    pieces = [piece for header in found.values() for piece in header.pieces]
    wanted = _reachable(pieces, set(_CALL.findall(body)))
    kept = (one.text if one.name in wanted else "\n" * one.text.count("\n") for one in pieces)
    return "".join(kept) + '#line 1 "policy.c"\n'


@cache
def _read(path: Path, _changed: int) -> _Header:
    text = path.read_text().replace("#pragma once\n", "\n")
    text = _COMMENT.sub(lambda one: " " + "\n" * one[0].count("\n"), text)
    includes = tuple(_INCLUDE.findall(text))
    text = f'#line 1 "{path.parent.name}/{path.name}"\n{_INCLUDE.sub(chr(10), text)}\n'
    pieces, at = [], 0
    for one in _FUNCTION.finditer(text):
        pieces += [_piece(text[at : one.start()]), _piece(one[0], function=True)]
        at = one.end()
    return _Header(includes, (*pieces, _piece(text[at:])))


def _piece(text: str, *, function: bool = False) -> _Piece:
    name = _NAME.search(text) if function else None
    return _Piece(text, name[1] if name else "", frozenset(_CALL.findall(text)))


def _reachable(pieces: list[_Piece], words: set[str]) -> set[str]:
    """Return the names of functions that are named, directly or by others that are; "" is text."""
    functions: dict[str, set[str]] = {}
    for one in pieces:
        if one.name:  # by more than one name where kernels or machines differ
            functions.setdefault(one.name, set()).update(one.calls)
        else:
            words |= one.calls
    wanted: set[str] = set()
    while new := (words & functions.keys()) - wanted:
        wanted |= new
        for name in new:
            words |= functions[name]
    return wanted | {""}
