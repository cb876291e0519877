"""Tracing policies: the document, its typed form, and every mistake with its position.

The parser and YAML are imported when `parse` or `read` is first asked for: a collector without
policies needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tracingpolicy.position import Mistake, PolicyErrors, Position

if TYPE_CHECKING:
    from tracingpolicy.reading.policy import parse, read

__all__ = ["Mistake", "PolicyErrors", "Position", "parse", "read"]


def __getattr__(name: str) -> object:
    if name in ("parse", "read"):
        return getattr(import_module("tracingpolicy.reading.policy"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
