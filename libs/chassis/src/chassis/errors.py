"""Errors that end a service.

ServiceError        one line on stderr, exit code
├── ListenError     an address cannot be listened on
├── SettingsError   a setting is missing, malformed or out of range
└── TokenFileError  the file of bearer tokens cannot be read, or has a malformed line
"""

from __future__ import annotations

from pathlib import Path


class ServiceError(Exception):
    """The service cannot continue, and the text says what to change: no traceback."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ListenError(ServiceError):
    """An address cannot be listened on; the text names its holder, if that is known."""


class SettingsError(ServiceError):
    """A setting is missing, malformed or out of range; the text names it."""


class TokenFileError(ServiceError):
    """The file of bearer tokens cannot be read, or has a malformed line."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(f"tokens: {path}: {cause}")
