"""The one live consumer of this process: from NATS to the broadcaster, each message once.

A pull consumer in memory. After anything unexpected it is replaced by one that starts after the
last batch: a number that does not follow, silence, a new connection. Its state is one number.

While no client has a stream open, there is no consumer, and nothing is read: the subscriber only
checks from time to time whether the stream exists. Messages stored meanwhile are past events for
the next client, which starts after them or asks for them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js import api
from nats.js.errors import APIError, NotFoundError

from bus.connection import describe, is_reflected, until_cancelled
from bus.subjects import EVENTS_ALL, EVENTS_STREAM
from chassis.backoff import Backoff
from eventstream.batch import Batch
from eventstream.history import decode
from gateway import stream_state
from gateway.broadcaster import Broadcaster
from gateway.pull import Pull
from gateway.settings import Settings
from gateway.stream_state import StreamState

REST_AFTER_S = 10.0  # without a client
LOOK_EVERY_S = 4.0  # at the stream, while nothing is read
# nats-server (seen with 2.15.1) reports a stream as deleted before its files are: a stream that is
# created at that moment inherits the old state, loses its files and never acknowledges.
REMAKE_AFTER_S = 1.0
RETRY_MIN_S, RETRY_MAX_S = 0.1, 5.0
_TIMEOUT_S = 2.0  # of a request to JetStream
_NO_STORAGE = 10047  # nats-server's server/errors.json: JSStorageResourcesExceededErr
DUPLICATE_WINDOW_S = 120
REPORT_EVERY_S = 10.0  # malformed messages and events

_log = structlog.get_logger()


class Subscriber:
    """Keeps the stream, and one consumer on it."""

    def __init__(
        self,
        nc: Client,
        settings: Settings,
        broadcaster: Broadcaster,
        on_batch: Callable[[Batch], None],
    ) -> None:
        self._nc = nc
        self._js = nc.jetstream(timeout=_TIMEOUT_S)
        self._settings = settings
        self._broadcaster = broadcaster
        self._on_batch = on_batch
        self._disturbed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._reading = asyncio.Event()
        self._unwanted_at = -REST_AFTER_S
        self._placed: StreamState | None = None
        self._reported = False
        # Made on top of a deleted one's state (see REMAKE_AFTER_S): it acknowledges nothing.
        self.stream_is_dead = False
        self.malformed_messages = 0
        self.malformed_events = 0
        self._reported_malformed_at = -REPORT_EVERY_S
        self._live = {True: asyncio.Event(), False: asyncio.Event()}
        self._live[False].set()

    def restart(self) -> None:
        """Replace the consumer: the connection is a new one, or lost."""
        self._disturbed.set()

    @property
    def live(self) -> bool:
        """Whether events come in."""
        return self._live[True].is_set()

    @property
    def connected(self) -> bool:
        """Whether there is a connection to NATS."""
        return self._nc.is_connected

    async def wait_live(self, live: bool = True) -> None:
        """Return when events come in, or when they do not."""
        await self._live[live].wait()

    def want(self, wanted: bool) -> None:
        """Note whether any client has a stream open."""
        if wanted or self._settings.read_without_clients:
            self._wanted.set()
        elif self._wanted.is_set():
            self._wanted.clear()
            self._unwanted_at = asyncio.get_running_loop().time()

    async def wait_reading(self) -> None:
        """Return when batches are read, from the stream's end at a time after `want`."""
        await self._reading.wait()

    @property
    def reading(self) -> bool:
        """Whether batches are read."""
        return self._reading.is_set()

    def _set_live(self, live: bool) -> None:
        self._live[live].set()
        self._live[not live].clear()

    async def run(self) -> None:
        """Keep a subscription; does not return."""
        waits = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        self.want(False)
        while True:
            self._disturbed.clear()
            if not self._nc.is_connected:
                await self._disturbed.wait()
                continue
            try:
                await until_cancelled(self._ensure_stream())
                if not self._wanted.is_set() and not self._reading.is_set():
                    await self._rest()
                if self._wanted.is_set() or self._reading.is_set():
                    await self._subscribe()
                waits.reset()
            except (Error, TimeoutError, OSError) as error:
                if not self._reported:
                    _log.warning("stream unavailable", error=self._cause(error))
                    self._reported = True
                self._set_live(False)
            if self.live and not self._disturbed.is_set():
                continue  # nothing failed: a client connected, or the last one disconnected
            self._set_live(False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(waits.next_s()):
                    await self._disturbed.wait()

    def _cause(self, error: Exception) -> str:
        text = describe(error)
        if isinstance(error, APIError) and error.err_code == _NO_STORAGE:
            text += (
                f": TETRA_STREAM_MAX_BYTES is {self._settings.stream_max_bytes}, more than the "
                f"disk space that NATS may use: set it lower, or make room"
            )
        return text

    async def _ensure_stream(self) -> None:
        wanted = api.StreamConfig(
            name=EVENTS_STREAM,
            subjects=[EVENTS_ALL],
            retention=api.RetentionPolicy.LIMITS,
            storage=api.StorageType.FILE,
            discard=api.DiscardPolicy.OLD,
            max_age=self._settings.stream_max_age_s,
            max_bytes=self._settings.stream_max_bytes,
            num_replicas=self._settings.stream_replicas,
            duplicate_window=min(
                DUPLICATE_WINDOW_S, self._settings.stream_max_age_s or DUPLICATE_WINDOW_S
            ),
            allow_direct=True,
        )
        try:
            found = (await self._js.stream_info(EVENTS_STREAM)).config
        except NotFoundError:
            if self._placed is not None:  # it was deleted while the gateway runs
                await asyncio.sleep(REMAKE_AFTER_S)
            await self._js.add_stream(wanted)
            self.stream_is_dead = await self._took_over()
            if self.stream_is_dead:
                _log.error("stream took over the state of a deleted one", stream=EVENTS_STREAM)
            else:
                _log.info("stream made", stream=EVENTS_STREAM)
            return
        ours = ("subjects", "max_age", "max_bytes", "num_replicas", "allow_direct")
        if any(getattr(found, name) != getattr(wanted, name) for name in ours):
            try:
                await self._js.update_stream(wanted)
                _log.info("stream updated", stream=EVENTS_STREAM)
            except Error as error:
                _log.warning("stream not updated", stream=EVENTS_STREAM, error=str(error))

    async def _took_over(self) -> bool:
        return (await self._state()).is_taken_over

    async def _state(self) -> StreamState:
        return await until_cancelled(stream_state.read(self._nc, _TIMEOUT_S))

    async def _rest(self) -> None:
        """Check the stream at intervals, until a client opens a stream or the check fails."""
        _log.info("resting: no client", stream=EVENTS_STREAM)
        while not self._wanted.is_set() and not self._disturbed.is_set():
            self._place(await self._state())
            self._set_live(True)
            self._reported = False
            waiting = [asyncio.ensure_future(e.wait()) for e in (self._wanted, self._disturbed)]
            try:
                await asyncio.wait(
                    waiting, timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                for one in waiting:
                    one.cancel()

    def _place(self, state: StreamState) -> None:
        """Begin at the stream's end, or after the last batch that a client has read."""
        last, head = state.last_sequence, self._broadcaster.head
        same = self._placed is not None and state.created_ns == self._placed.created_ns
        if self._placed is None:
            self._broadcaster.restart(last)
        elif last < head and same:
            # A damaged file, or a server that acknowledged before it had synced.
            _log.error("stream lost its end", last_sequence=head, new_last_sequence=last)
            self._broadcaster.restart(last, (last + 1, head))
        elif last < head or state.replaced(self._placed):
            _log.warning("stream was replaced", last_sequence=head, new_last_sequence=last)
            self._broadcaster.restart(0 if self._reading.is_set() else last)
        elif not self._reading.is_set() and last > head:
            self.stream_is_dead = False
            self._broadcaster.restart(last)
        self._placed = state

    async def _subscribe(self) -> None:
        self._place(await self._state())
        wanted = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self._broadcaster.head + 1,
            ack_policy=api.AckPolicy.NONE,
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=60.0,
        )
        consumer = await until_cancelled(self._js.add_consumer(EVENTS_STREAM, wanted))
        pull = Pull(self._nc, consumer.name, self._receive, self._disturbed)
        await until_cancelled(pull.start())
        self._reading.set()
        self._set_live(True)
        self._reported = False
        _log.info("subscribed", stream=EVENTS_STREAM, after=self._broadcaster.head)
        try:
            await pull.watch(self._may_rest)
        finally:
            if self._may_rest():
                self._reading.clear()
            else:
                self._set_live(False)
            await until_cancelled(pull.stop())
        if not self._reading.is_set():
            with contextlib.suppress(Error, TimeoutError):  # NATS deletes it when it is unused
                await until_cancelled(self._js.delete_consumer(EVENTS_STREAM, consumer.name))

    def _may_rest(self) -> bool:
        now = asyncio.get_running_loop().time()
        return not self._wanted.is_set() and now - self._unwanted_at >= REST_AFTER_S

    def _receive(self, message: Msg, sequence: int, stored_ns: int) -> None:
        self.stream_is_dead = False
        data = b"" if is_reflected(message, direct=False) else message.data
        batch = decode(data, message.subject, sequence, stored_ns)
        if not batch.node_name:
            self.malformed_messages += 1
            self._report_malformed(message.subject, sequence)
        elif batch.malformed:
            self.malformed_events += len(batch.malformed)
            self._report_malformed(message.subject, sequence)
        self._on_batch(batch)
        self._broadcaster.publish(batch)

    def _report_malformed(self, subject: str, sequence: int) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._reported_malformed_at >= REPORT_EVERY_S:
            self._reported_malformed_at = now
            _log.warning(
                "malformed batches dropped",
                messages=self.malformed_messages,
                events=self.malformed_events,
                last_subject=subject,
                last_sequence=sequence,
            )
