"""Errors that end a service.

ServiceError     one line on stderr, exit code
└── SettingsError  a setting is missing, malformed or out of range
"""

from __future__ import annotations


class ServiceError(Exception):
    """The service cannot continue, and the text says what to change: no traceback."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class SettingsError(ServiceError):
    """A setting is missing, malformed or out of range; the text names it."""
