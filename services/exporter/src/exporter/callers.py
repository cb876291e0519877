"""Who may ask for the export file's rotation, and who may change it.

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

from exporter.errors import ConfigError

RIGHTS = frozenset({"read", "control", "policies"})


@dataclass(frozen=True, slots=True)
class Callers:
    """Grants of a token file, which is read for each call: there are few."""

    tokens: Path | None
    node: str  # this host's name

    def check(self) -> None:
        """Raise `ConfigError` where the file cannot be used."""
        self._grants()

    def refusal(
        self, right: str, metadata: Iterable[tuple[str, str | bytes]]
    ) -> tuple[grpc.StatusCode, str] | None:
        """Return why a call that needs ``right`` is refused; None where it is allowed."""
        if self.tokens is None:
            return None
        try:
            grants = self._grants()
        except ConfigError as error:
            return grpc.StatusCode.UNAVAILABLE, str(error)
        header = next((str(v) for k, v in metadata if k == "authorization"), "")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            return grpc.StatusCode.UNAUTHENTICATED, "authorization: a bearer token is needed"
        for known, (rights, nodes) in grants.items():
            if hmac.compare_digest(known.encode(), token.strip().encode()):
                if right in rights and (not nodes or self.node in nodes):
                    return None
                text = f"authorization: the token does not grant {right!r} here"
                return grpc.StatusCode.PERMISSION_DENIED, text
        return grpc.StatusCode.UNAUTHENTICATED, "authorization: the token is not known"

    def _grants(self) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
        if self.tokens is None:
            return {}
        try:
            lines = self.tokens.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            cause = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"tokens: {self.tokens}: {cause}") from None
        found = {}
        for number, line in enumerate(lines, 1):
            words = line.split("#", 1)[0].split()
            if not words:
                continue
            rights = frozenset(words[1].split(",")) if len(words) > 1 else frozenset[str]()
            if not rights or rights - RIGHTS or len(words) > 3:
                raise ConfigError(
                    f"tokens: {self.tokens}: line {number}: expected TOKEN RIGHT[,RIGHT] "
                    "[NODE,...] with rights read, control, policies"
                )
            found[words[0]] = rights, frozenset(words[2].split(",") if len(words) > 2 else ())
        return found


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
