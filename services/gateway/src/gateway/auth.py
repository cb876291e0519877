"""Authentication by bearer tokens, from a file that is read again when it changes.

A line of the file: ``TOKEN RIGHT[,RIGHT] [NODE,...]``. Rights: ``read`` reads events and state,
``control`` changes settings (SetDebug), ``policies`` changes tracing policies. Node names limit all
of them to these nodes. ``#`` begins a comment, which names the token's holder in the audit. Without
a token file every client may do everything.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import structlog

from chassis.errors import TokenFileError
from chassis.tokens import read_tokens
from gateway import rights
from gateway.revocation import Revocation
from gateway.rights import Grant
from gateway.streams import Context

_LOOK_EVERY_S = 1.0

_log = structlog.get_logger()


class Tokens:
    """The token file's content. Tokens are kept as hashes only."""

    def __init__(self, path: Path) -> None:
        """Read ``path``; raise `TokenFileError` if that fails."""
        self._path = path
        self._stamp = self._read_stamp()
        self._grants = self._read()
        self._look_at = time.monotonic() + _LOOK_EVERY_S

    def find(self, digest: bytes) -> Grant | None:
        """Return what the token with this `digest` grants, None where it is not known."""
        self._refresh()
        return self._grants.get(digest)

    # If the file becomes unreadable, the old tokens remain valid.
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
        except TokenFileError as error:
            _log.warning("tokens not reloaded", error=str(error))

    def _read_stamp(self) -> tuple[int, int, int]:
        try:
            state = os.stat(self._path)
        except OSError as error:
            raise TokenFileError(self._path, error.strerror or str(error)) from None
        return state.st_mtime_ns, state.st_size, state.st_ino

    def _read(self) -> dict[bytes, Grant]:
        grants = {}
        for line in read_tokens(self._path):
            name = digest(line.token)
            holder = line.comment or f"token sha256:{name.hex()[:8]}"
            grants[name] = Grant(line.rights, line.nodes, holder)
        return grants


class Interceptor(grpc.aio.ServerInterceptor):
    """Passes a request on if its token grants the right that its method needs."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._revocation = Revocation(tokens.find)

    async def watch(self) -> None:
        """End streams whose token is removed or changed, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self._revocation.end_revoked()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Set what this request is granted, or refuse it."""
        method = str(handler_call_details.method)
        needed = rights.NEEDED.get(method)
        if needed is None:
            return _refuse(grpc.StatusCode.PERMISSION_DENIED, f"{method} is not granted to tokens")
        if needed == rights.NONE:
            return await continuation(handler_call_details)
        headers = [
            str(value)
            for key, value in handler_call_details.invocation_metadata or ()
            if key == "authorization"
        ]
        if not headers:
            return _refuse(grpc.StatusCode.UNAUTHENTICATED, "a bearer token is needed")
        scheme, _, token = headers[0].partition(" ")
        name = digest(token.strip())
        grant = self._tokens.find(name) if scheme.lower() == "bearer" else None
        if grant is None:
            return _refuse(grpc.StatusCode.UNAUTHENTICATED, "the token is not known")
        if needed not in grant.rights:
            return _refuse(
                grpc.StatusCode.PERMISSION_DENIED, f"the token does not grant {needed!r}"
            )
        rights.current.set(grant)
        return self._revocation.guard(await continuation(handler_call_details), name, grant)


def _refuse(code: grpc.StatusCode, text: str) -> Any:
    async def refuse(request: bytes, context: Context) -> None:
        await context.abort(code, f"authorization: {text}")

    return grpc.unary_unary_rpc_method_handler(refuse)


def digest(token: str) -> bytes:
    """Return the hash by which a token is known here."""
    return hashlib.sha256(token.encode()).digest()
