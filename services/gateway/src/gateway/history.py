"""What the stream has: read by place or time, with no consumer to make, keep or clean up.

JetStream's batched direct get answers from any place of the stream and keeps no state, so a client
that goes away leaves nothing behind and a NATS that restarts has nothing to forget.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from bus.subjects import EVENTS_STREAM
from gateway.batch import Batch
from gateway.errors import BusError

_DIRECT_GET = f"$JS.API.DIRECT.GET.{EVENTS_STREAM}"
_TIMEOUT_S = 5.0
CHUNK_BATCHES = 64
CHUNK_BYTES = 1 << 20  # at least one message comes whatever its size


class Bounds(NamedTuple):
    """First and last sequence number in the stream; last is first - 1 while it is empty."""

    first: int
    last: int


class History:
    """Reads the stream's past. ``max_readers`` fetch at once, others wait."""

    def __init__(self, nc: Client, max_readers: int) -> None:
        self._nc = nc
        self._js = nc.jetstream(timeout=_TIMEOUT_S)
        self._slots = asyncio.Semaphore(max_readers)
        self.fetches_total = 0

    async def bounds(self) -> Bounds:
        """Return what the stream spans; raise `BusError` if NATS does not answer."""
        try:
            state = (await self._js.stream_info(EVENTS_STREAM)).state
        except (Error, TimeoutError) as error:
            raise _bus_error("stream", error) from None
        return Bounds(max(state.first_seq, 1), state.last_seq)

    async def fetch(self, start: int, limit: int = CHUNK_BATCHES) -> list[Batch]:
        """Return batches from sequence number ``start`` on; empty if there is none yet.

        Where the stream no longer has ``start``, the first is the oldest it has.
        """
        return await self._fetch({"seq": start, "batch": limit, "max_bytes": CHUNK_BYTES})

    async def find(self, time_ns: int) -> Batch | None:
        """Return the first batch stored at or after ``time_ns``, if any."""
        time = datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat().replace("+00:00", "Z")
        found = await self._fetch({"start_time": time, "batch": 1})
        return found[0] if found else None

    async def _fetch(self, request: dict[str, Any]) -> list[Batch]:
        async with self._slots:
            self.fetches_total += 1
            inbox = self._nc.new_inbox()
            batches: list[Batch] = []
            done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

            async def receive(message: Msg) -> None:
                status = message.headers.get("Status") if message.headers else None
                if status is None:
                    batches.append(_decode(message))
                elif not done.done():
                    done.set_result(status)

            try:
                subscription = await self._nc.subscribe(inbox, cb=receive)
                try:
                    await self._nc.publish(_DIRECT_GET, json.dumps(request).encode(), reply=inbox)
                    async with asyncio.timeout(_TIMEOUT_S):
                        status = await done
                finally:
                    if not self._nc.is_closed and not self._nc.is_draining:
                        await subscription.unsubscribe()
            except (Error, TimeoutError) as error:
                raise _bus_error("events", error) from None
            if status not in ("204", "404"):  # end of batch; nothing there
                raise BusError(f"events: stream {EVENTS_STREAM}: status {status}")
            return batches


def _decode(message: Msg) -> Batch:
    headers = message.headers or {}
    sequence = int(headers["Nats-Sequence"])
    stored = datetime.fromisoformat(headers["Nats-Time-Stamp"][:26].rstrip("Z") + "+00:00")
    return decode(message.data, sequence, int(stored.timestamp() * 1e9))


def decode(data: bytes, sequence: int, stored_ns: int) -> Batch:
    """Return the batch in a message; a message that is none counts as a batch without events."""
    try:
        return Batch.decode(data, sequence, stored_ns)
    except DecodeError:
        return Batch.decode(b"", sequence, stored_ns)


def _bus_error(step: str, error: Exception) -> BusError:
    return BusError(f"{step}: nats: {str(error) or type(error).__name__}")
