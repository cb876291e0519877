"""Errors of the launcher.

EmbeddedError           printed as one line, with lines that explain it; carries the exit code
└── ChildError          a child could not start or ended while it was needed
"""

from collections.abc import Sequence


class EmbeddedError(Exception):
    """Something that the user can correct (exit code 2), or a failure (1)."""

    def __init__(self, message: str, *, exit_code: int = 2, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.details = details  # lines of a child's log


class ChildError(EmbeddedError):
    """A child could not start or ended while it was needed."""
