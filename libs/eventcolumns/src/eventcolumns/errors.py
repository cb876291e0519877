"""Errors of columns.

ColumnsError     files cannot be read or written, or a query cannot be answered; one line
"""

from __future__ import annotations


class ColumnsError(Exception):
    """Files cannot be read or written, or a query cannot be answered."""
