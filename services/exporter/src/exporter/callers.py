"""Authorization to read and change the rotation of the export file.

Calls come from this host only: by a Unix socket, whose permissions decide, or on loopback. With a
file of tokens each call needs one; the form is the gateway's: ``TOKEN RIGHT[,RIGHT] [NODE,...]``.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import grpc

from chassis.errors import TokenFileError
from chassis.tokens import TokenLine, read_tokens
from exporter.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Callers:
    """Grants of a token file, which is read for each call: there are few."""

    tokens: Path | None
    node: str  # this host's name

    def check(self) -> None:
        """Raise `TokenFileError` where the file cannot be used."""
        self._grants()

    def refusal(
        self, right: str, metadata: Iterable[tuple[str, str | bytes]]
    ) -> tuple[grpc.StatusCode, str] | None:
        """Return why a call that needs ``right`` is refused; None where it is allowed."""
        if self.tokens is None:
            return None
        try:
            grants = self._grants()
        except TokenFileError as error:
            return grpc.StatusCode.UNAVAILABLE, str(error)
        header = next((str(v) for k, v in metadata if k == "authorization"), "")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            return grpc.StatusCode.UNAUTHENTICATED, "authorization: a bearer token is needed"
        for line in grants:
            if hmac.compare_digest(line.token.encode(), token.strip().encode()):
                if right in line.rights and (not line.nodes or self.node in line.nodes):
                    return None
                text = f"authorization: the token does not grant {right!r} here"
                return grpc.StatusCode.PERMISSION_DENIED, text
        return grpc.StatusCode.UNAUTHENTICATED, "authorization: the token is not known"

    def _grants(self) -> list[TokenLine]:
        return read_tokens(self.tokens) if self.tokens is not None else []


def listen_address(address: str) -> str:
    """Return ``address`` as gRPC takes it; raise `ConfigError` where other hosts could reach it."""
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:").removeprefix("//"))
        if not path.parent.is_dir():
            raise ConfigError(f"settings: event_log_address: {path.parent}: no such folder")
        return f"unix:{path}"
    host, _, port = address.rpartition(":")
    name = host.removeprefix("[").removesuffix("]")
    try:
        local = name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        local = False
    if not local or not port.isdecimal():
        raise ConfigError(
            f"settings: event_log_address: {address}: expected unix:PATH or a loopback address, "
            "as 127.0.0.1:54322"
        )
    return f"127.0.0.1:{port}" if name == "localhost" else address
