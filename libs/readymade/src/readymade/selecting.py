"""The short form that settings have: which ready-made policies, with which parameters.

``files,network``, or with parameters ``files paths=/etc,/srv secrets=/etc/shadow; network``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from readymade.documents import load
from readymade.parameters import ReadyError
from readymade.rendering import render


class Choice(NamedTuple):
    """A policy that should be loaded."""

    name: str
    given: Mapping[str, str]

    def document(self) -> str:
        """Return the tracing policy; raise `ReadyError`."""
        return render(load(self.name), self.given)


def selection(text: str) -> tuple[Choice, ...]:
    """Return the policies that a setting names; raise `ReadyError` for what does not exist."""
    parts = text.split(";") if "=" in text or ";" in text else text.split(",")
    choices: dict[str, Choice] = {}
    for part in filter(None, map(str.strip, parts)):
        name, *words = part.split()
        choice = Choice(name, given(words))
        choice.document()
        if name in choices:
            raise ReadyError(f"{name} is named twice")
        choices[name] = choice
    return tuple(choices.values())


def given(words: list[str]) -> dict[str, str]:
    """Return what ``key=value`` words say; raise `ReadyError`."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ReadyError(f'"{word}" is not a setting (allowed: NAME=VALUE)')
        found[key] = value
    return found
