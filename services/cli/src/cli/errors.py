"""Errors of the CLI. ``main`` turns each into one line on stderr and an exit code.

TetraError                   exit code 1
├── UsageError               exit code 2: the user can correct it; carries an example
└── ServerError              the server answered with an error
    ├── UnreachableError     nothing answered, or the connection broke
    └── UnsupportedError     the server does not know this call
"""


class TetraError(Exception):
    """Something failed; the message is one line: step: object: cause."""

    exit_code = 1


class UsageError(TetraError):
    """A flag, address, certificate, time or cursor is wrong; ``example`` is a correct one."""

    exit_code = 2

    def __init__(self, message: str, example: str = "") -> None:
        """Append the example to the message."""
        super().__init__(f"{message}; for example: {example}" if example else message)
        self.example = example


class ServerError(TetraError):
    """The server answered with an error."""


class UnreachableError(ServerError):
    """Nothing answered at the address, or the connection broke."""


class UnsupportedError(ServerError):
    """The server does not know the call: an older one, or a plain Tetragon."""
