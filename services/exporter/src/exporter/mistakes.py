"""Mistakes in the file of sinks, a line each: where, what, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

_NOT_A_LIST = frozenset({"tuple_type", "list_type"})
_NOT_A_MAPPING = frozenset({"dict_type", "model_type", "model_attributes_type"})


def describe(error: ValidationError, kinds: Mapping[str, type[BaseModel]]) -> list[str]:
    """Return a line for each mistake; ``kinds``: the keys of each type of sink."""
    return [_line(one, kinds) for one in error.errors()]


def _line(one: Any, kinds: Mapping[str, type[BaseModel]]) -> str:
    place = ".".join(str(part) for part in one["loc"]) or "document"
    return f"{place}: {_text(one, kinds)}"


def _text(one: Any, kinds: Mapping[str, type[BaseModel]]) -> str:
    kind, found = one["type"], one["input"]
    if kind == "extra_forbidden":
        return f"no such key{_instead(str(one['loc'][-1]), _keys(one['loc'], kinds))}"
    if kind == "union_tag_invalid":
        return f"type: no such type {one['ctx']['tag']!r}{_instead(one['ctx']['tag'], kinds)}"
    if kind == "union_tag_not_found":
        return f"type is missing: one of {', '.join(kinds)}"
    if kind == "missing":
        return "is missing"
    if kind in _NOT_A_LIST:
        return "not a list: write each entry behind a dash"
    if kind in _NOT_A_MAPPING:
        return "empty" if found is None else "not a mapping of keys to values"
    message = one["msg"].removeprefix("Value error, ")
    return f"{message[:1].lower()}{message[1:]}"


def _keys(loc: tuple[str | int, ...], kinds: Mapping[str, type[BaseModel]]) -> list[str]:
    """Return the keys that ``loc`` may have; none where they are not a sink's own."""
    if len(loc) == 4 and str(loc[2]) in kinds:
        return [*kinds[str(loc[2])].model_fields]
    return ["sinks"] if len(loc) == 1 else []


def _instead(word: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(word, known, 1)
    if near:
        return f": did you mean {near[0]}?"
    return f": one of {', '.join(known)}" if known else ""
