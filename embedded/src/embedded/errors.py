"""Errors of the launcher.

EmbeddedError           printed as one line, with what explains it; the exit code is in it
└── ChildError          a child could not start or ended while it was needed
"""

from collections.abc import Sequence


class EmbeddedError(Exception):
    """What the person who ran us has to change (exit code 2), or what broke (1)."""

    def __init__(self, message: str, *, exit_code: int = 2, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.details = details  # lines of a child's log


class ChildError(EmbeddedError):
    """A child could not start or ended while it was needed."""
