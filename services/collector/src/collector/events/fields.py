"""Tags of protobuf fields, looked up by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wire.write import VARINT, message, tag, text

_KEY, _VALUE = tag(1), tag(2)  # of the entry of a map


def tags(kind: type[Any], *names: str) -> dict[str, bytes]:
    """Return the tags of length-delimited fields of message ``kind``."""
    fields = kind.DESCRIPTOR.fields_by_name
    return {name: tag(fields[name].number) for name in names}


def varint_tag(kind: type[Any], name: str) -> bytes:
    """Return the tag of a number, enum or bool field of message ``kind``."""
    return tag(kind.DESCRIPTOR.fields_by_name[name].number, VARINT)


def map_entries(field_tag: bytes, pairs: Iterable[tuple[str, str]]) -> list[bytes]:
    """Return the entries of a map of texts."""
    return [message(field_tag, text(_KEY, key) + text(_VALUE, value)) for key, value in pairs]
