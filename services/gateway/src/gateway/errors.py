"""Errors of the gateway.

ServiceError (chassis: one line on stderr, exit code)
├── ListenError     the address cannot be listened on
└── SecurityError   certificates or the address itself do not fit together
RequestError        a client's request is refused: gRPC status and text

`eventstream.errors.BusError` becomes a refusal, too: UNAVAILABLE.
"""

from __future__ import annotations

import grpc

from chassis.errors import ServiceError


class ListenError(ServiceError):
    """The address cannot be listened on."""


class SecurityError(ServiceError):
    """Certificates or the address itself do not fit together."""


class RequestError(Exception):
    """A client's request is refused."""

    def __init__(
        self, message: str, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT
    ) -> None:
        super().__init__(message)
        self.code = code
