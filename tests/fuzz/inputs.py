"""The form that every target's inputs have, and where they are kept.

An input is a byte of options (each target says what its bits switch on) and parts, each with its
length in two bytes; a length that lies takes what is left. So any bytes are an input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from random import Random
from struct import Struct
from typing import Protocol

CORPUS = Path(__file__).with_name("corpus")
MAX_BYTES = 12288  # of an input
_MAX_PARTS = 128  # more than there are types of arguments
_LENGTH = Struct("<H")

# Target and the packages whose coverage guides it.
TARGETS = {
    "records": "collector",
    "tracing": "collector",
    "ring": "collector",
    "spool": "collector",
    "table": "collector",
    "journal": "collector",
    "batches": "gateway",
    "requests": "gateway",
    "rendered": "cli",
    "policies": "tracingpolicy",
}


class Target(Protocol):
    """What a module of ``fuzz.targets`` has; its docstring says what must hold."""

    def seeds(self) -> list[bytes]:
        """Return well-formed inputs to begin with."""

    def check(self, options: int, parts: list[bytes]) -> None:
        """Feed one input to the real code; raise where something does not hold."""

    def mutate(self, part: bytes, rng: Random) -> bytes:
        """Return a part that still has the right form, mostly."""


def join(options: int, parts: Iterable[bytes]) -> bytes:
    """Return the input made of ``parts``, each cut to what a length can say."""
    cut = [part[:0xFFFF] for part in parts]
    return bytes((options,)) + b"".join(_LENGTH.pack(len(part)) + part for part in cut)


def split(data: bytes) -> tuple[int, list[bytes]]:
    """Return options and parts of any bytes."""
    at, parts = 1, []
    while at + _LENGTH.size <= len(data) and len(parts) < _MAX_PARTS:
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        parts.append(data[at : at + length])
        at += length
    return data[0] if data else 0, parts


def kept(name: str) -> list[Path]:
    """Return the inputs kept for a target, in a steady order."""
    return sorted(path for path in (CORPUS / name).glob("*") if path.is_file())


def keep(name: str, data: bytes, *, broke: bool = False) -> Path:
    """Keep an input; its name is its hash, with a mark if it ``broke`` something."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha1(data, usedforsecurity=False).hexdigest()[:16]
    path = folder / (f"{name}-broke" if broke else name)
    path.write_bytes(data)
    return path


def mutate(data: bytes, target: Target, max_bytes: int, seed: int) -> bytes:
    """Return ``data`` with one or some of its parts changed, doubled, moved, cut or gone."""
    rng = Random(seed)
    options, parts = split(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(parts)) if parts else 0
        match rng.randrange(12):
            case 0:
                options ^= 1 << rng.randrange(8)
            case 1 if parts:
                parts.insert(rng.randrange(len(parts) + 1), parts[at])
            case 2 if len(parts) > 1:
                del parts[at]
            case 3 if len(parts) > 1:
                parts[at], parts[0] = parts[0], parts[at]
            case 4 if parts:
                parts[at] = parts[at][: rng.randrange(len(parts[at]) + 1)]
            case 5 if parts:
                parts[at] = flipped(parts[at], rng)
            case 6:
                _, others = split(rng.choice(target.seeds()))
                if others:
                    parts.append(rng.choice(others))
            case _ if parts:
                parts[at] = target.mutate(parts[at], rng)
    while parts and len(join(options, parts)) > max_bytes:
        parts.pop()
    return join(options, parts)


def flipped(data: bytes, rng: Random) -> bytes:
    """Return ``data`` with some bytes changed."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if out:
            out[rng.randrange(len(out))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(out)
