"""Errors of gRPC calls, as errors with the cause and what to do next."""

from __future__ import annotations

import re

import grpc

from cli.address import Address, ServerOptions
from cli.errors import (
    DeniedError,
    RefusedError,
    ServerError,
    TetraError,
    UnreachableError,
    UnsupportedError,
    UsageError,
)

_CONNECTION_LOST = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)

# Parts of gRPC's messages, and what they mean to the user.
_CAUSES = {
    "certificate has expired": "TLS: the server's certificate has expired; it needs a new one",
    "certificate is not yet valid": "TLS: the server's certificate is not valid yet; are the "
    "clocks right?",
    "Hostname Verification": "TLS: the certificate is for another name; pass that name with "
    "--tls-server-name gateway.example",
    "CERTIFICATE_VERIFY_FAILED": "TLS: the certificate is from an unknown authority; pass its "
    "certificate with --tls-ca-cert-files ca.pem",
    "WRONG_VERSION_NUMBER": "TLS: the server does not use TLS; leave the --tls flags out",
    "SSL_ERROR": "TLS: the handshake failed; does the server require --tls-cert-file client.pem "
    "--tls-key-file client-key.pem?",
    "No such file or directory": "there is no such socket; is the gateway running there?",
    "Failed parsing HTTP/2": "the server there does not speak gRPC; is it the gateway's port?",
    "before receiving SETTINGS": "the server there does not answer; is it the gateway's port?",
    "Connection refused": "connection refused; is the gateway running there?",
    "Name or service not known": "the host name is not known",
    "Domain name not found": "the host name is not known",
    "DNS": "the host name is not known",
}

# A correct flag for each field of a request that a gateway may refuse.
_EXAMPLES = {
    "binary_regex": "--process '^/usr/bin/'",
    "parent_binary_regex": "--parent-process 'sh$'",
    "arguments_regex": "--arguments '^-l '",
    "pod_regex": "--pod '^web-'",
    "namespace_regex": "--namespace-regex '^shop'",
    "container_name_regex": "--containers '^web'",
    "container_id": "--container-id '^0123'",
    "labels": "--labels 'app=web,tier in (a,b)'",
    "cel_expression": "--cel-expression 'process_exec.process.pid > uint(1)'",
    "file_below": "--files /etc",
    "peer": "--connections 10.0.0.0/8",
    "field_filters": "--include-fields process.pid,parent",
}


def explained(
    error: grpc.RpcError, address: Address, options: ServerOptions, *, is_new: bool
) -> TetraError:
    """Return the error of a call to ``address``; ``is_new``: no response came over the channel."""
    code, details = code_of(error), _details(error)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return UnreachableError(
            f"call: {address}: no answer within {options.timeout_s:g} s (--timeout)"
        )
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return UnsupportedError(f"call: {address}: the server does not offer it")
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return ServerError(f"call: {address}: {details}; pass it with --token-file or TETRA_TOKEN")
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        example = _EXAMPLES.get(details.partition(":")[0], "")
        return UsageError(f"request: {address}: {details}", example)
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return UsageError(f"receive: {address}: {details}", "--max-recv-size 67108864")
    if code in _CONNECTION_LOST:
        cause = _cause(details)
        if "Socket closed" in cause and is_new:
            cause = _closed_at_once(options)
        return UnreachableError(f"connect: {address}: {cause}")
    kind = DeniedError if code == grpc.StatusCode.PERMISSION_DENIED else ServerError
    return kind(f"call: {address}: {code.name.lower()}: {details}")


# Of calls about policies: answers of the server itself, with a text for the user. A plain Tetragon
# answers every refusal with UNKNOWN.
_REFUSALS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
_NOT_CONNECTED = "failed to connect to all addresses"


def refusal(error: grpc.RpcError) -> RefusedError | None:
    """Return the server's reason for refusing a call about policies; None: it did not refuse."""
    code = code_of(error)
    if code not in _REFUSALS:
        return None
    text = (error.details() if isinstance(error, grpc.Call) else "") or code.name.lower()
    first, *more = [line.strip() for line in text.splitlines() if line.strip()] or [text]
    return RefusedError(first.rstrip("."), code.name, more)


def never_sent(error: grpc.RpcError) -> bool:
    """Return whether the call reached no server, so that it may be repeated."""
    return code_of(error) == grpc.StatusCode.UNAVAILABLE and _NOT_CONNECTED in _details(error)


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """Return the status code of a failed call."""
    return error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN


def _details(error: grpc.RpcError) -> str:
    text = error.details() if isinstance(error, grpc.Call) else str(error)
    return " ".join((text or "").split()).rstrip(".")


def _closed_at_once(options: ServerOptions) -> str:
    """Return the likely cause where a server closes the connection before it has answered."""
    if options.tls is None:
        return "the server closes the connection; does it require TLS? --tls-ca-cert-files ca.pem"
    if options.tls.cert_file:
        return "the server closes the connection; does it know the authority of --tls-cert-file?"
    return (
        "the server closes the connection; does it require a client certificate? "
        "--tls-cert-file client.pem --tls-key-file client-key.pem"
    )


def _cause(details: str) -> str:
    """Return the cause in a message of gRPC: the last of its errors."""
    for sign, cause in _CAUSES.items():
        if sign in details:
            return cause
    last = details.rpartition("last error: ")[2] or "connection lost"
    return re.sub(r"^[A-Z_]+: (?:ipv[46]:\S+: |unix:\S+: )?", "", last)
