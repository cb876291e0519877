"""Errors of columns.

ColumnsError     files cannot be read or written, or a query cannot be answered; one line
└── DamagedBlock the file of a block cannot be read
"""

from __future__ import annotations

from pathlib import Path


class ColumnsError(Exception):
    """Files cannot be read or written, or a query cannot be answered."""


class DamagedBlock(ColumnsError):
    """A block's file cannot be read, and never will."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"damaged block {path}: {reason}")
        self.path, self.reason = path, reason
