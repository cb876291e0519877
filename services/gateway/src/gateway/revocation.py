"""Ends the streams of a token that is removed, or that grants something else now."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from gateway.rights import Grant
from gateway.streams import Context


@dataclass(eq=False, slots=True)
class _Stream:
    task: asyncio.Task[Any]
    token: bytes
    grant: Grant
    revoked: tuple[grpc.StatusCode, str] | None = None


class Revocation:
    """Knows the open streams of each token. ``find`` returns what a token grants now."""

    def __init__(self, find: Callable[[bytes], Grant | None]) -> None:
        self._find = find
        self._open: set[_Stream] = set()

    def end_revoked(self) -> None:
        """Cancel the streams whose token no longer grants the same."""
        for stream in self._open:
            grant = self._find(stream.token)
            if stream.revoked is None and grant != stream.grant:
                stream.revoked = (
                    (grpc.StatusCode.UNAUTHENTICATED, "the token was removed")
                    if grant is None
                    else (grpc.StatusCode.UNAVAILABLE, "the token was changed: connect again")
                )
                stream.task.cancel()

    def guard(self, handler: Any, token: bytes, grant: Grant) -> Any:
        """Return ``handler``, whose streams end when ``token`` is revoked."""
        if handler is None or not handler.response_streaming:
            return handler
        inner = handler.stream_stream or handler.unary_stream

        async def run(request: Any, context: Context) -> None:
            async with self._while_granted(token, grant, context):
                await inner(request, context)

        async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._while_granted(token, grant, context):
                async for response in inner(request, context):
                    yield response

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )
        guarded: Any = generate if inspect.isasyncgenfunction(inner) else run
        return make(guarded, handler.request_deserializer, handler.response_serializer)

    @asynccontextmanager
    async def _while_granted(
        self, token: bytes, grant: Grant, context: Context
    ) -> AsyncIterator[None]:
        task = asyncio.current_task()
        assert task is not None
        stream = _Stream(task, token, grant)
        self._open.add(stream)
        try:
            yield
        except asyncio.CancelledError:
            if stream.revoked is None:
                raise
            task.uncancel()
            code, text = stream.revoked
            await context.abort(code, f"authorization: {text}")
        finally:
            self._open.discard(stream)
