"""Tags of protobuf fields, looked up by name."""

from __future__ import annotations

from typing import Any

from wire.write import VARINT, tag


def tags(kind: type[Any], *names: str) -> dict[str, bytes]:
    """Return the tags of length-delimited fields of message ``kind``."""
    fields = kind.DESCRIPTOR.fields_by_name
    return {name: tag(fields[name].number) for name in names}


def varint_tag(kind: type[Any], name: str) -> bytes:
    """Return the tag of a number, enum or bool field of message ``kind``."""
    return tag(kind.DESCRIPTOR.fields_by_name[name].number, VARINT)
