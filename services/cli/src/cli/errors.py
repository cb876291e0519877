"""Errors of the CLI. ``main`` turns each into one line on stderr and an exit code.

TetraError                   exit code 1
├── UsageError               exit code 2: the user can correct it; carries an example
├── NotSeenError             exit code 3: the stream has no events of the subject
└── ServerError              the server answered with an error
    ├── RefusedError         the server refused a change, with its reason
    ├── UnreachableError     nothing answered, or the connection broke
    └── UnsupportedError     the server does not know this call
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class TetraError(Exception):
    """Something failed; the message is one line: step: object: cause.

    ``details`` are printed below it, a line each.
    """

    exit_code = 1
    details: tuple[str, ...] = ()


class UsageError(TetraError):
    """A flag, address, certificate, time or cursor is wrong; ``example`` is correct.

    Where it is raised, the example may be flags alone; the command completes it (`in_command`).
    """

    exit_code = 2

    def __init__(self, message: str, example: str = "") -> None:
        """``message`` is without the example."""
        super().__init__(message)
        self.message = message
        self.example = example

    def __str__(self) -> str:
        """Return the message with the example behind it."""
        return f"{self.message}; for example: {self.example}" if self.example else self.message


class NotSeenError(TetraError):
    """The stream has no events of ``subject``."""

    exit_code = 3

    def __init__(self, subject: str) -> None:
        super().__init__(
            f"profile: {subject}: the stream has no events of it: is the name complete?"
        )


class ServerError(TetraError):
    """The server answered with an error."""


class DeniedError(ServerError):
    """The token lacks the right that the call needs."""


class RefusedError(ServerError):
    """The server refused a change or a question about policies; the message is its reason."""

    def __init__(self, reason: str, status: str = "", details: Iterable[str] = ()) -> None:
        """``status``: the name of the gRPC status."""
        super().__init__(reason)
        self.status = status
        self.details = tuple(details)

    def under(self, step: str, *advice: str) -> RefusedError:
        """Return the same error with the step in front, once, and ``advice`` below."""
        reason = str(self).removeprefix(f"{step}: ").removeprefix(f"{step} ")
        return RefusedError(f"{step}: {reason}", self.status, (*self.details, *advice))

    def map(self, change: Callable[[str], str]) -> RefusedError:
        """Return the same error with each of its lines changed."""
        return RefusedError(change(str(self)), self.status, map(change, self.details))


class UnreachableError(ServerError):
    """Nothing answered at the address, or the connection broke."""


class UnsupportedError(ServerError):
    """The server does not know the call: an older one, or a plain Tetragon."""
