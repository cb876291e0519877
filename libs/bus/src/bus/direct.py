"""Messages of a stream by JetStream's direct get: no consumer, no state, any copy answers."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from bus.connection import cancellable, is_reflected

DIRECT_GET = "$JS.API.DIRECT.GET."
EXPIRES_HEADER = "Nats-TTL"
TIMEOUT_S = 5.0
_END_OF_BATCH, _NOT_FOUND = "204", "404"


class StoredMessage(NamedTuple):
    """A message of a stream; ``reflected`` ones were not published there by their author.

    ``expires``: it leaves the stream after a time of its own.
    """

    subject: str
    sequence: int
    stored_ns: int
    data: bytes
    reflected: bool
    expires: bool = False


class DirectGetError(Error):
    """NATS answered with a status that is no answer."""


async def get_messages(nc: Client, stream: str, request: dict[str, Any]) -> list[StoredMessage]:
    """Return what a batched or multi-subject direct get finds; raise `nats.errors.Error`."""
    return await _get(nc, stream, request, single=False)


async def get_last(nc: Client, stream: str, subject: str) -> StoredMessage | None:
    """Return the newest message on ``subject``, which may have wildcards, or None."""
    wanted = {"last_by_subj": subject}
    found = await _get(nc, stream, wanted, single=True)
    return found[0] if found else None


@cancellable
async def _get(
    nc: Client, stream: str, request: dict[str, Any], *, single: bool
) -> list[StoredMessage]:
    inbox = nc.new_inbox()
    found: list[StoredMessage] = []
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def receive(message: Msg) -> None:
        status = message.headers.get("Status") if message.headers else None
        if status is None:
            found.append(_stored(message))
        if (status or single) and not done.done():
            done.set_result(status or _END_OF_BATCH)

    subscription = await nc.subscribe(inbox, cb=receive)
    try:
        await nc.publish(DIRECT_GET + stream, json.dumps(request).encode(), reply=inbox)
        async with asyncio.timeout(TIMEOUT_S):
            status = await done
    except TimeoutError:
        raise DirectGetError(f"stream {stream}: no answer") from None
    finally:
        if not nc.is_closed and not nc.is_draining:
            await subscription.unsubscribe()
    if status not in (_END_OF_BATCH, _NOT_FOUND):
        raise DirectGetError(f"stream {stream}: status {status}")
    return found


def _stored(message: Msg) -> StoredMessage:
    headers = message.headers or {}
    return StoredMessage(
        headers["Nats-Subject"],
        int(headers["Nats-Sequence"]),
        _time_ns(headers["Nats-Time-Stamp"]),
        message.data,
        is_reflected(message, direct=True),
        EXPIRES_HEADER in headers,
    )


def _time_ns(text: str) -> int:
    """Return the time that Go wrote as RFC 3339: nanoseconds without final zeros."""
    seconds = int(datetime.fromisoformat(f"{text[:19]}+00:00").timestamp())
    return seconds * 1_000_000_000 + int(text[19:].strip(".Z").ljust(9, "0"))
