"""Cursors as text: ``<stream sequence>:<index>``, and ``:<time stored, ns>`` if it is known."""

from __future__ import annotations

import re

from cli.errors import UsageError
from tetra.v1.stream_pb2 import Cursor


def cursor_text(cursor: Cursor) -> str:
    """Return ``cursor`` as ``--after`` takes it."""
    text = f"{cursor.stream_sequence}:{cursor.index}"
    return f"{text}:{cursor.stored_ns}" if cursor.stored_ns else text


def parse_cursor(text: str) -> Cursor:
    """Return the cursor in ``text``; raise `UsageError` if it is not one."""
    found = re.fullmatch(r"(\d{1,20}):(\d{1,10})(?::(\d{1,20}))?", text.strip())
    if found:
        sequence, index, stored_ns = int(found[1]), int(found[2]), int(found[3] or 0)
        if sequence < 1 << 64 and index < 1 << 32 and stored_ns < 1 << 64:
            return Cursor(stream_sequence=sequence, index=index, stored_ns=stored_ns)
    raise UsageError(
        f"--after: {text!r} is not a cursor (--show-cursor prints one)", "--after 81234:17"
    )
