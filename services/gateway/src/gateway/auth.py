"""Who may do what: bearer tokens from a file that is read again when it changes.

A line of the file: ``TOKEN RIGHT[,RIGHT] [NODE,...]``. Rights: ``read`` sees events and state,
``control`` changes something (SetDebug). Node names limit both to these nodes. ``#`` begins a
comment. Without a token file every client may do everything.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog

from gateway.errors import RequestError, SecurityError
from gateway.streams import Context

READ, CONTROL = "read", "control"
_RIGHTS = frozenset((READ, CONTROL))
_CONTROLLING = frozenset(("/tetragon.FineGuidanceSensors/SetDebug",))
_OPEN = frozenset(("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"))
_LOOK_EVERY_S = 1.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Grant:
    """What the holder of a token may do, and on which nodes; no nodes means all."""

    rights: frozenset[str] = _RIGHTS
    nodes: frozenset[str] = frozenset()


# Set for the task that handles one request.
_grant: ContextVar[Grant] = ContextVar("grant", default=Grant())  # noqa: B039 - it is frozen


def granted_nodes() -> frozenset[str]:
    """Return the nodes this request is limited to; empty means all."""
    return _grant.get().nodes


def may_see(node: str) -> bool:
    """Return whether this request may learn of ``node``."""
    nodes = granted_nodes()
    return not nodes or node in nodes


def choose_nodes(wanted: frozenset[str]) -> frozenset[str]:
    """Return the nodes of ``wanted`` (empty: all) for this request; raise if one is not granted."""
    nodes = granted_nodes()
    if not nodes:
        return wanted
    for node in sorted(wanted - nodes):
        raise RequestError(f"node {node}: not yours", grpc.StatusCode.PERMISSION_DENIED)
    return wanted or nodes


class Tokens:
    """The token file's content. Tokens are kept as hashes only."""

    def __init__(self, path: Path) -> None:
        """Read ``path``; raise `SecurityError` if that fails."""
        self._path = path
        self._stamp = self._read_stamp()
        self._grants = self._read()
        self._look_at = time.monotonic() + _LOOK_EVERY_S

    def find(self, token: str) -> Grant | None:
        """Return what ``token`` grants, None where it is not known."""
        self._refresh()
        return self._grants.get(_digest(token))

    # A file that has become unreadable leaves the old tokens in force.
    def _refresh(self) -> None:
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        try:
            stamp = self._read_stamp()
            if stamp != self._stamp:
                self._grants = self._read()
                self._stamp = stamp
                _log.info("tokens reloaded", tokens=len(self._grants))
        except SecurityError as error:
            _log.warning("tokens not reloaded", error=str(error))

    def _read_stamp(self) -> tuple[int, int, int]:
        try:
            state = os.stat(self._path)
        except OSError as error:
            raise SecurityError(f"tokens: {self._path}: {error.strerror}") from None
        return state.st_mtime_ns, state.st_size, state.st_ino

    def _read(self) -> dict[bytes, Grant]:
        try:
            lines = self._path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            cause = getattr(error, "strerror", None) or str(error)
            raise SecurityError(f"tokens: {self._path}: {cause}") from None
        grants = {}
        for number, line in enumerate(lines, 1):
            words = line.split("#", 1)[0].split()
            if not words:
                continue
            rights = frozenset(words[1].split(",")) if len(words) > 1 else frozenset()
            if not rights or rights - _RIGHTS or len(words) > 3:
                raise SecurityError(
                    f"tokens: {self._path}: line {number}: expected TOKEN RIGHT[,RIGHT] "
                    "[NODE,...] with rights read, control"
                )
            nodes = frozenset(words[2].split(",")) if len(words) > 2 else frozenset()
            grants[_digest(words[0])] = Grant(rights, nodes)
        return grants


class Interceptor(grpc.aio.ServerInterceptor):
    """Lets a request pass if its token grants what it asks."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Set what this request is granted, or refuse it."""
        method = handler_call_details.method
        if method in _OPEN:
            return await continuation(handler_call_details)
        needed = CONTROL if method in _CONTROLLING else READ
        headers = [
            str(value)
            for key, value in handler_call_details.invocation_metadata or ()
            if key == "authorization"
        ]
        if not headers:
            return _refuse(grpc.StatusCode.UNAUTHENTICATED, "a bearer token is needed")
        scheme, _, token = headers[0].partition(" ")
        grant = self._tokens.find(token.strip()) if scheme.lower() == "bearer" else None
        if grant is None:
            return _refuse(grpc.StatusCode.UNAUTHENTICATED, "the token is not known")
        if needed not in grant.rights:
            return _refuse(
                grpc.StatusCode.PERMISSION_DENIED, f"the token does not grant {needed!r}"
            )
        _grant.set(grant)
        return await continuation(handler_call_details)


def _refuse(code: grpc.StatusCode, text: str) -> Any:
    async def refuse(request: bytes, context: Context) -> None:
        await context.abort(code, f"authorization: {text}")

    return grpc.unary_unary_rpc_method_handler(refuse)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
