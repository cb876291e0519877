"""Numbers with their noun."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """Return ``1 node`` or ``3 nodes``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def grouped(count: int, what: str) -> str:
    """Return ``1 node`` or ``3,000 nodes``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
