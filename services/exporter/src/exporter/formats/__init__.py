"""Formats of an event: Tetragon's JSON, OCSF, ECS. Each is a function from an event to a line.

A sink that stores events as protobuf messages has none.
"""

from __future__ import annotations

from collections.abc import Callable

from exporter.selection import Selected

Encode = Callable[[Selected], str]


def encoder(name: str) -> Encode:
    """Return the function that makes a line, without its end, of an event."""
    if name == "none":
        return lambda selected: ""
    if name == "ocsf":
        from exporter.formats.ocsf import encode

        return encode
    if name == "ecs":
        from exporter.formats.ecs import encode as encode_ecs

        return encode_ecs
    from exporter.formats.tetragon import encoder as tetragon

    return tetragon()
