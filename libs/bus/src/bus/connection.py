"""One connection to NATS that retries without limit.

nats-py awaits its error callback between two attempts, at the first connect and at reconnects. The
growing wait between attempts happens there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js.errors import ServiceUnavailableError

from bus.settings import BusSettings
from bus.subjects import escape
from chassis.backoff import Backoff

# Past events are read with the batched direct get of NATS 2.11.
OLDEST_SERVER = (2, 11)
RETRY_MIN_S = 0.1
RETRY_MAX_S = 5.0
# Between two warnings that NATS is unreachable.
WARN_MIN_S = 10.0
WARN_MAX_S = 600.0
CONNECT_TIMEOUT_S = 2
_CANCEL_AGAIN_S = 0.1
PING_INTERVAL_S = 10  # a host that vanished is noticed after two of these

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


# Header of a message of the stream that was sent on to a subject by JetStream: see `is_reflected`.
_SUBJECT_HEADER = "Nats-Subject"
_REFLECTED_HEADER = "Tetra-Reflected"


def is_reflected(message: Msg, *, direct: bool) -> bool:
    """Return whether a message of the stream was not published there by a collector.

    JetStream answers a direct get on whatever reply subject the reader names, also on one that the
    reader may not publish on. So a message can be copied into another node's subject. The copy has
    the headers of such an answer. A message that was read by direct get itself (``direct``) has
    them once, and a copy has them twice.
    """
    headers = message.headers or {}
    return (_REFLECTED_HEADER if direct else _SUBJECT_HEADER) in headers


Take = Callable[[bytes, bytes], None]  # headers as they came, data


class _Client(Client):
    """Reconnects where nats-py would close the connection, or stop without an error.

    uvloop raises RuntimeError where a lost connection is written to. nats-py expects OSError.
    """

    def __init__(self) -> None:
        super().__init__()
        self.takers: dict[int, Take] = {}  # by subscription

    # Reading the past consists mostly of this: it needs no object, queue or task per message.
    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        take = self.takers.get(sid)
        if take is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        take(headers or b"", data)

    # nats-py encrypts only where the server asks for it, and else sends the password in the clear.
    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        await super()._process_info(info, initial_connection)
        if not initial_connection or "tls" not in self.options or info.get("tls_required"):
            return
        if not info.get("tls_available"):
            raise ConnectionError("the server offers no TLS, which the settings ask for")
        info["tls_required"] = True

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except (Error, OSError, TimeoutError):
            raise
        except Exception as error:  # ValueError: the other side is no nats-server
            raise ConnectionError(f"handshake: {describe(error)}") from error

    async def _attempt_reconnect(self) -> None:
        while True:
            try:
                await super()._attempt_reconnect()
                return
            except Exception as error:  # lost again while subscriptions were sent
                task = asyncio.current_task()
                if self.is_closed or (task and task.cancelling()):
                    return
                self._status = Client.RECONNECTING
                await self._error_cb(error)

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        task = asyncio.current_task()
        requests = task.cancelling() if task else 0
        try:
            flushed = await super()._flush_pending(force_flush)
        except (OSError, RuntimeError) as error:  # what was not sent is sent after the reconnect
            await self._process_op_err(error)
            return None
        if task and task.cancelling() > requests:  # nats-py suppresses a cancellation
            raise asyncio.CancelledError
        return flushed

    # As nats-py's own, which looks at each character of each name: a third of reading the past.
    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        try:
            lines = raw.decode("ascii").split("\r\n")
        except UnicodeDecodeError:
            return dict(Client._parse_header_lines(raw))
        parsed = {}
        for line in lines:
            name, colon, value = line.partition(":")
            name = name.strip()
            if colon and len(name.split(None, 1)) <= 1:  # a name has no space in it
                parsed[name] = value.strip()
        return parsed

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        parsed: dict[str, str] | None = await super()._process_headers(headers)
        if parsed and headers.count(b"\n" + _SUBJECT_HEADER.encode() + b":") > 1:
            parsed[_REFLECTED_HEADER] = "1"
        return parsed

    async def _process_err(self, err_msg: str) -> None:
        if self.is_connected and "permissions violation" not in err_msg.lower():
            await self._process_op_err(Error(f"nats: {err_msg}"))
        else:
            await super()._process_err(err_msg)


def parse_headers(raw: bytes) -> dict[str, str]:
    """Return the headers of a message that `taking` gave; of one name, the last."""
    return _Client._parse_header_lines(raw)


@contextlib.asynccontextmanager
async def taking(nc: Client, subject: str, take: Take) -> AsyncIterator[None]:
    """Subscribe for as long as the context lasts; ``take`` gets each message as it was read.

    It is called while the connection is read, so it must neither raise nor take long.
    """
    if not isinstance(nc, _Client):
        raise TypeError("taking: a client that `connect` did not make")
    subscription = await nc.subscribe(subject)
    number = subscription._id
    nc.takers[number] = take
    try:
        yield
    finally:
        # Messages are taken until the end, so that late ones do not fill a queue that nothing
        # reads.
        try:
            if not nc.is_closed and not nc.is_draining:
                await subscription.unsubscribe()
        finally:
            del nc.takers[number]


class _Watch:
    """Waits between attempts, and logs the state of the connection, not each attempt."""

    def __init__(
        self, nc: Client, settings: BusSettings, on_change: Callable[[bool], None] | None
    ) -> None:
        self._nc = nc
        self._settings = settings
        self.tls = settings.read_files()
        self._on_change = on_change
        self._attempts = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        self._warnings = Backoff(WARN_MIN_S, WARN_MAX_S)
        self._warn_at = 0.0

    def _reset(self) -> None:
        self._attempts.reset()
        self._warnings.reset()
        self._warn_at = 0.0

    async def on_error(self, error: Exception) -> None:
        if self._nc.is_connected:
            _log.warning("nats error", extra={"error": describe(error)})
            return
        wait_s = self._attempts.next_s()
        now = time.monotonic()
        if now >= self._warn_at:
            _log.warning(
                "nats unreachable",
                extra={
                    "servers": _without_secrets(self._settings.nats_servers()),
                    "error": describe(error),
                    "attempts": self._attempts.attempts,
                },
            )
            self._warn_at = now + self._warnings.next_s()
        await asyncio.sleep(wait_s)

    async def on_disconnect(self) -> None:
        if self._nc.is_closed or self._nc.is_draining:
            return
        _log.warning("nats disconnected")
        if self.tls is not None:
            try:
                self._settings.load_nats_certificate(self.tls)
            except OSError as error:
                _log.warning("nats certificate not reloaded", extra={"error": str(error)})
        if self._on_change:
            self._on_change(False)

    async def on_connect(self) -> None:
        self._reset()
        url = self._nc.connected_url
        _log.info("nats connected", extra={"server": url.netloc.rpartition("@")[2] if url else ""})
        found = self._nc.connected_server_version
        version = (found.major or 0, found.minor or 0)
        if (0, 0) < version < OLDEST_SERVER:
            facts = {"version": version, "needed": OLDEST_SERVER}
            _log.error(
                "nats-server is too old: past events cannot be read",
                extra={key: ".".join(map(str, numbers)) for key, numbers in facts.items()},
            )
        if self._on_change:
            self._on_change(True)


def client() -> Client:
    """Return a client that is not connected yet, for use before `connect`."""
    return _Client()


async def connect(
    settings: BusSettings,
    name: str,
    *,
    nc: Client | None = None,
    on_change: Callable[[bool], None] | None = None,
) -> Client:
    """Return a connection called ``name``; wait for as long as NATS is unreachable.

    ``nc`` is what `client` gave, or None for a new one.
    It reconnects without limit. ``on_change`` is called with True when connected, with False when
    the connection is lost. Raises `SettingsError` where a certificate or password file cannot be
    read.
    """
    if nc is None:
        nc = client()
    watch = _Watch(nc, settings, on_change)
    connecting = nc.connect(
        settings.nats_servers(),
        name=name,
        inbox_prefix=_inbox_prefix(settings),
        error_cb=watch.on_error,
        disconnected_cb=watch.on_disconnect,
        reconnected_cb=watch.on_connect,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0,
        connect_timeout=CONNECT_TIMEOUT_S,
        ping_interval=PING_INTERVAL_S,
        tls=watch.tls,
        user=settings.nats_user,
        password=(lambda: settings.read_nats_password() or "") if settings.nats_user else None,
        user_credentials=str(settings.nats_creds_file) if settings.nats_creds_file else None,
    )
    try:
        await until_cancelled(connecting)
    except BaseException:
        # Between two attempts nats-py keeps the socket of the last one.
        if nc._transport is not None:
            nc._transport.close()  # type: ignore[no-untyped-call]  # nats-py leaves it out
        raise
    await watch.on_connect()
    return nc


async def until_cancelled(calling: Coroutine[Any, Any, T]) -> T:
    """Await calls of nats-py. A cancellation holds, although nats-py can lose one.

    It does so in `publish` and `subscribe` (Client._flush_pending), and in `request`, where
    asyncio.wait_for of Python 3.11 loses one that comes with the answer. A loop around such a call
    would not end.
    """
    task = asyncio.create_task(calling)
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=_CANCEL_AGAIN_S)
        if not task.cancelled():
            task.exception()  # of a call that nothing waits for: not logged
        raise
    return task.result()


def cancellable(call: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return ``call`` with its cancellations held, as `until_cancelled` does."""

    @wraps(call)
    async def held(*args: P.args, **kwargs: P.kwargs) -> T:
        return await until_cancelled(call(*args, **kwargs))

    return held


# Each user has a prefix of its own, so that a server can forbid it to read another's inboxes.
def _inbox_prefix(settings: BusSettings) -> str:
    return f"_INBOX.{escape(settings.nats_user)}" if settings.nats_user else "_INBOX"


async def drain(nc: Client, timeout_s: float = 1.0) -> None:
    """Send pending messages and close, within ``timeout_s``."""
    if nc._transport is None:  # never connected: nats-py asserts that it was
        return
    with contextlib.suppress(Error, OSError, TimeoutError):
        async with asyncio.timeout(timeout_s):
            await nc.drain()
    if not nc.is_closed:
        # RuntimeError: of uvloop, where the connection was lost with something still to write.
        with contextlib.suppress(Error, OSError, TimeoutError, RuntimeError):
            async with asyncio.timeout(timeout_s):
                await nc.close()
    # nats-py counts as closed from the first step of closing (Client._close) on: one that ran out
    # of time in between still has its socket.
    if nc._transport is not None:
        nc._transport.close()  # type: ignore[no-untyped-call]  # nats-py leaves it out


def describe(error: Exception) -> str:
    """Return what nats-py's error means to a person."""
    text = str(error) or type(error).__name__
    if "authorization violation" in text.lower():
        text += ": check TETRA_NATS_USER and TETRA_NATS_PASSWORD_FILE"
    if isinstance(error, ServiceUnavailableError) and error.err_code is None:
        text = (
            "JetStream does not answer: switch it on in nats-server (--jetstream, or jetstream {} "
            "in its configuration), or wait for its cluster"
        )
    return text


def _without_secrets(servers: list[str]) -> str:
    return ",".join(
        f"{scheme}://{rest.rpartition('@')[2]}"
        for scheme, _, rest in (server.partition("://") for server in servers)
    )
