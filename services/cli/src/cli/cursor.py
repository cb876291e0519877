"""Cursors as text: ``<stream sequence>:<index>``."""

from __future__ import annotations

import re

from cli.errors import UsageError
from tetra.v1.stream_pb2 import Cursor


def cursor_text(cursor: Cursor) -> str:
    """Return ``cursor`` as ``--after`` takes it."""
    return f"{cursor.stream_sequence}:{cursor.index}"


def parse_cursor(text: str) -> Cursor:
    """Return the cursor in ``text``; raise `UsageError` if there is none."""
    found = re.fullmatch(r"(\d{1,20}):(\d{1,10})", text.strip())
    if found:
        sequence, index = int(found[1]), int(found[2])
        if sequence < 1 << 64 and index < 1 << 32:
            return Cursor(stream_sequence=sequence, index=index)
    raise UsageError(f"--after: {text!r} is not a cursor", "--after 81234:17 (from --show-cursor)")
