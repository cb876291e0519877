"""The parts of a line, and what all ready-made policies read from their events."""

from __future__ import annotations

import errno
import re
from typing import Any, NamedTuple

from eventfilters.accesses import arguments
from tetragon.tetragon_pb2 import KprobeArgument

_PREFIX = re.compile(r"^(?:__)?(?:x64|arm64|ia32)_(?:compat_)?sys_|^security_path_|^security_")
_NUMBERS = ("int_arg", "uint_arg", "size_arg", "long_arg", "bpf_cmd_arg")
_WORDS_32 = 0xFFFF_FFFF


class Act(NamedTuple):
    """What a process did. Nothing is escaped here: the renderer does that with whole texts."""

    emoji: str
    word: str
    what: str  # what it was done to
    outcome: str = ""  # why it failed
    file: str = ""  # for ``tetra top``
    peer: str = ""


def call_of(body: Any) -> str:
    """Return the name of the call: ``renameat2`` of ``__x64_sys_renameat2``."""
    if "function_name" not in body.DESCRIPTOR.fields_by_name:
        return str(body.event)
    return _PREFIX.sub("", body.function_name)


def numbers(body: Any) -> dict[str, int]:
    """Return the numbers of an event by their labels."""
    found = {one.label: value_of(one) for one in arguments(body)}
    return {label: value for label, value in found.items() if value is not None}


def value_of(argument: KprobeArgument) -> int | None:
    """Return the number in an argument; None if it has another type."""
    member = argument.WhichOneof("arg")
    return int(getattr(argument, member)) if member in _NUMBERS else None


def result_of(body: Any) -> int | None:
    """Return what the call returned; None if that is not reported or no number."""
    if "return" not in body.DESCRIPTOR.fields_by_name or not body.HasField("return"):
        return None
    return value_of(getattr(body, "return"))


def failure_of(body: Any) -> str:
    """Return the name of the error that the call returned, "" for success."""
    result = result_of(body)
    return error_name(-result) if result is not None and result < 0 else ""


def error_name(number: int) -> str:
    """Return ``ENOENT`` for 2."""
    return errno.errorcode.get(number, f"error {number}") if number else ""


def signed(value: int) -> int:
    """Return a number of 32 bits with its sign: ids have -1 for "not changed"."""
    value &= _WORDS_32
    return value - (1 << 32) if value >> 31 else value
