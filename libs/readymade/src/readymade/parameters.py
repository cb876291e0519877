"""Parameters of ready-made policies: a type each, and every value is checked before it is used."""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_VALUES = 64
NONE = "none"  # written for a list without values
DEFAULT = "default"  # written for the default; no type has it as a value
_MOST_BYTES = 255  # of a path: what a prefix may have in a tracing policy
_INTERVAL = re.compile(r"[1-9]\d{0,6}[smh]\Z")
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

Value = bool | str | tuple[str, ...]


class ReadyError(ValueError):
    """A name, parameter or value that a ready-made policy does not have; the text says which."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a user may set."""

    name: str
    type: str  # a key of `TYPES`
    default: Value
    help: str

    def read(self, text: str) -> Value:
        """Return the value that a user wrote; raise `ReadyError`.

        An empty text is refused where it would switch off what the default reports: it most often
        comes from a variable that is not set. ``none`` does that on purpose.
        """
        if text.strip() == DEFAULT:
            return self.default
        if isinstance(self.default, tuple):
            if text.strip() == NONE:
                return ()
            if self.default and not text.strip():
                allowed = f"allowed: {self.what}, or {NONE}"
                raise ReadyError(f"{self.name}: the value is empty ({allowed})")
        try:
            return TYPES[self.type].read(text)
        except ValueError as error:
            raise ReadyError(f"{self.name}: {error}") from None

    @property
    def what(self) -> str:
        """Return what values look like."""
        return TYPES[self.type].what


@dataclass(frozen=True, slots=True)
class ParameterType:
    """How values of one type are read."""

    read: Callable[[str], Value]
    what: str


def parameter(name: str, entry: Mapping[str, Any]) -> Parameter:
    """Return the parameter of a document."""
    default = entry["default"]
    if isinstance(default, bool):
        text = "true" if default else "false"
    else:
        text = default if isinstance(default, str) else ",".join(default)
    bare = Parameter(name, entry["type"], (), " ".join(entry["help"].split()))
    return Parameter(name, bare.type, bare.read(text), bare.help)


def shown(value: Value) -> str:
    """Return a value as a user writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else ",".join(value)


def _list(read: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    def read_all(text: str) -> tuple[str, ...]:
        parts = [part.strip() for part in text.split(",")] if text.strip() else []
        values = tuple(dict.fromkeys(read(part) for part in parts))
        if len(values) > MOST_VALUES:
            raise ValueError(f"{len(values)} values are too many (allowed: {MOST_VALUES})")
        return values

    return read_all


def _path(text: str) -> str:
    bare = text.rstrip("/") or "/"
    if not text.startswith("/"):
        raise ValueError(f'"{text}" is not an absolute path')
    if "\0" in text or posixpath.normpath(bare) != bare or bare.startswith("//"):
        raise ValueError(f'"{text}" has an empty component, "." or ".."')
    if len(bare.encode()) >= _MOST_BYTES:
        raise ValueError(f'"{text[:32]}..." is longer than {_MOST_BYTES - 1} bytes')
    return bare


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError(f'"{text}" is neither an IP address nor a network') from None


def _flag(text: str) -> bool:
    if text.lower() not in _TRUTH:
        raise ValueError(f'"{text}" is neither true nor false')
    return _TRUTH[text.lower()]


def _interval(text: str) -> str:
    if not _INTERVAL.match(text):
        raise ValueError(f'"{text}" is not a time (allowed: 30s, 5m, 1h)')
    return text


TYPES: Mapping[str, ParameterType] = {
    "paths": ParameterType(_list(_path), "absolute paths, separated by commas"),
    "networks": ParameterType(_list(_network), "IP addresses or networks, separated by commas"),
    "flag": ParameterType(_flag, "true or false"),
    "interval": ParameterType(_interval, "a time: 30s, 5m, 1h"),
}
