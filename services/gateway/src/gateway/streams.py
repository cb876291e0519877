"""The event streams that are open: how many, how far behind, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from eventfilters import MAX_REQUEST_BYTES, CostError, FilterError
from eventstream.errors import BusError
from eventstream.history import History
from gateway.broadcaster import Broadcaster
from gateway.errors import RequestError
from gateway.feed import Feed
from gateway.selection import Compiler, FilteredRequest, Selection
from gateway.subscriber import Subscriber
from gateway.turn import Turn

READING_WITHIN_S = 5.0  # after a stream was opened
MAX_FILTER_BYTES = 256 << 20  # compiled, of all open streams
_NOT_LIVE = "events: nats unreachable or stream missing"

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[Any]]


async def _ignore() -> None:
    """Ignore the first stream."""


class Streams:
    """Opens event streams while there is room, and ends them all when the gateway stops."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        history: History,
        subscriber: Subscriber,
        max_clients: int,
        announce: Callable[[], Awaitable[None]] = _ignore,
    ) -> None:
        """``announce`` is called when a client opens a stream while no other one is open."""
        self.broadcaster = broadcaster
        self.history = history
        self._subscriber = subscriber
        self._max_clients = max_clients
        self._announce = announce
        self._compiler = Compiler()
        self._filter_bytes = 0  # at most, of all open streams
        self._open: dict[asyncio.Task[Any], Feed | None] = {}
        self._stopping = False
        self.sent_events_total = 0

    @property
    def live(self) -> bool:
        """Whether events come in."""
        return self._subscriber.live

    @property
    def stopping(self) -> bool:
        """Whether all streams are being ended."""
        return self._stopping

    @property
    def stream_is_dead(self) -> bool:
        """Whether the stream exists but will never store an event."""
        return self._subscriber.stream_is_dead

    @property
    def malformed(self) -> dict[str, int]:
        """Malformed messages and events since the start."""
        return {
            "message": self._subscriber.malformed_messages,
            "event": self._subscriber.malformed_events,
        }

    @asynccontextmanager
    async def open(
        self, request: FilteredRequest, nodes: frozenset[str]
    ) -> AsyncIterator[Selection]:
        """Reserve a place for a stream; raise `RequestError` if there is none.

        Gives the filters of ``request`` on ``nodes``, compiled; raises `FilterError`.
        """
        selection = await self.compile(request, nodes)
        self._check_place(selection.memory_bytes)
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = None
        self._filter_bytes += selection.memory_bytes
        try:
            await self._begin_reading()
            yield selection
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            task.uncancel()
            raise BusError("gateway is stopping: connect again") from None
        finally:
            self._filter_bytes -= selection.memory_bytes
            del self._open[task]
            self._subscriber.want(bool(self._open))

    # The first stream makes the gateway read; NATS's stream may be in the making.
    async def _begin_reading(self) -> None:
        self._subscriber.want(True)
        if len(self._open) == 1:
            await self._announce()
        try:
            async with asyncio.timeout(READING_WITHIN_S):
                await self._subscriber.wait_live()
                await self._subscriber.wait_reading()
        except TimeoutError:
            raise BusError("events: nats does not answer" if self.live else _NOT_LIVE) from None

    async def compile(self, request: FilteredRequest, nodes: frozenset[str]) -> Selection:
        """Return the filters of ``request`` on ``nodes``, compiled; raise `FilterError`."""
        return await self._compiler.compile(request, nodes)

    def _check_place(self, filter_bytes: int) -> None:
        if self._stopping:
            raise BusError("gateway is stopping: connect again")
        if len(self._open) >= self._max_clients:
            raise RequestError(
                f"streams: {self._max_clients} are open, which is the limit",
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            )
        if self._filter_bytes + filter_bytes > MAX_FILTER_BYTES:
            raise RequestError(
                f"filters: the limit of {MAX_FILTER_BYTES >> 20} MiB for the filters of all "
                f"clients is reached: use fewer regexes, or try again later",
                grpc.StatusCode.RESOURCE_EXHAUSTED,
            )
        if not self.live and not self._subscriber.connected:
            raise BusError(_NOT_LIVE)  # at once: another gateway may reach it

    def feed(self, turn: Turn, start: int | None = None) -> Feed:
        """Return the batches from ``start`` on, or from now on, for the stream of this task."""
        feed = Feed(self.broadcaster, self.history, turn, start)
        task = asyncio.current_task()
        if task in self._open:
            self._open[task] = feed
        return feed

    def stop(self) -> None:
        """End all streams with a status that makes their clients connect again."""
        self._stopping = True
        for task in self._open:
            task.cancel()

    def feeds(self) -> list[Feed]:
        """Return the feeds of the streams that are open."""
        return [feed for feed in self._open.values() if feed is not None]

    def __len__(self) -> int:
        return len(self._open)


async def begin(context: Context) -> None:
    """Send the initial metadata of a stream: before its first message, and also if it is cancelled.

    A status can end the call only after them. gRPC would answer "too many operations" while they
    are being sent, and the call would stay open.
    """
    sending = asyncio.ensure_future(context.send_initial_metadata(()))
    try:
        await asyncio.shield(sending)
    except asyncio.CancelledError:
        await asyncio.wait({sending})
        raise


def refusing(handler: Handler, kind: type[Message], max_bytes: int | None = None) -> Handler:
    """Return ``handler`` for a request's bytes, with every refusal turned into its gRPC status.

    A failed write ends the call as a cancelled one: the client has disconnected, and nothing can be
    sent.
    """

    async def handle(request: bytes, context: Context) -> Any:
        try:
            return await handler(_parse(request, kind, max_bytes), context)
        except RequestError as error:
            refusal = error
        except BusError as error:
            refusal = RequestError(str(error), grpc.StatusCode.UNAVAILABLE)
        except CostError as error:
            refusal = RequestError(str(error), grpc.StatusCode.RESOURCE_EXHAUSTED)
        except FilterError as error:
            refusal = RequestError(str(error))
        except grpc.aio.InternalError:  # before gRPC has cancelled this task; logged otherwise
            raise asyncio.CancelledError from None
        await context.abort(refusal.code, str(refusal))
        return None  # abort() raises

    return handle


def refusing_filters(handler: Handler, kind: type[Message]) -> Handler:
    """As `refusing`, for requests that carry filters."""
    return refusing(handler, kind, MAX_REQUEST_BYTES)


def _parse(request: bytes, kind: type[Message], max_bytes: int | None) -> Message:
    if max_bytes is not None and len(request) > max_bytes:
        raise RequestError(
            f"request: {len(request)} bytes, at most {max_bytes} are allowed: use fewer filters",
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )
    try:
        return kind.FromString(request)
    except DecodeError:
        raise RequestError(f"request: not a {kind.DESCRIPTOR.full_name}") from None
