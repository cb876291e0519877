"""Errors of the gateway.

ServiceError (chassis: one line on stderr, exit code)
└── SecurityError   certificates, tokens and address are inconsistent
RequestError        a client's request is refused: gRPC status and text

`eventstream.errors.BusError` becomes a refusal, too: UNAVAILABLE.
"""

from __future__ import annotations

import grpc

from chassis.errors import ServiceError


class SecurityError(ServiceError):
    """Certificates, tokens and address are inconsistent."""


class RequestError(Exception):
    """A client's request is refused."""

    def __init__(
        self, message: str, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT
    ) -> None:
        super().__init__(message)
        self.code = code
