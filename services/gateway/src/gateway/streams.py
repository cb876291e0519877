"""The event streams that are open: how many, how far behind, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from gateway.broadcaster import Broadcaster
from gateway.errors import BusError, RequestError
from gateway.feed import Feed
from gateway.history import History
from gateway.subscriber import Subscriber

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[Any]]


class Streams:
    """Opens event streams while there is room, and ends them all when the gateway stops."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        history: History,
        subscriber: Subscriber,
        max_clients: int,
    ) -> None:
        self.broadcaster = broadcaster
        self.history = history
        self._subscriber = subscriber
        self._max_clients = max_clients
        self._open: dict[asyncio.Task[Any], Feed | None] = {}
        self._stopping = False
        self.sent_events_total = 0

    @property
    def live(self) -> bool:
        """Whether events come in."""
        return self._subscriber.live

    @property
    def stream_is_dead(self) -> bool:
        """Whether the stream is there and will never take an event."""
        return self._subscriber.stream_is_dead

    @property
    def malformed(self) -> dict[str, int]:
        """What could not be read, since the start: messages that are no batches, and events."""
        return {
            "message": self._subscriber.malformed_messages,
            "event": self._subscriber.malformed_events,
        }

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold one of the places; raise `RequestError` where there is none."""
        if self._stopping:
            raise BusError("gateway is stopping: connect again")
        if len(self._open) >= self._max_clients:
            raise RequestError(
                f"streams: {self._max_clients} are open, which is the limit",
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            )
        if not self.live:
            raise BusError("events: nats unreachable or stream not there")
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = None
        try:
            yield
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            task.uncancel()
            raise BusError("gateway is stopping: connect again") from None
        finally:
            del self._open[task]

    def feed(self, start: int | None = None) -> Feed:
        """Return the batches from ``start`` on, or from now on, for the stream of this task."""
        feed = Feed(self.broadcaster, self.history, start)
        task = asyncio.current_task()
        if task in self._open:
            self._open[task] = feed
        return feed

    def stop(self) -> None:
        """End all streams: their clients are told to connect again."""
        self._stopping = True
        for task in self._open:
            task.cancel()

    def feeds(self) -> list[Feed]:
        """Return the feeds of the streams that are open."""
        return [feed for feed in self._open.values() if feed is not None]

    def __len__(self) -> int:
        return len(self._open)


def refusing(handler: Handler, kind: type[Message]) -> Handler:
    """Return ``handler`` for a request's bytes, with `RequestError` turned into its gRPC status."""

    async def handle(request: bytes, context: Context) -> Any:
        try:
            try:
                parsed = kind.FromString(request)
            except DecodeError:
                raise RequestError(f"request: not a {kind.DESCRIPTOR.full_name}") from None
            return await handler(parsed, context)
        except RequestError as error:
            refusal = error
        await context.abort(refusal.code, str(refusal))
        return None  # abort() raises

    return handle
