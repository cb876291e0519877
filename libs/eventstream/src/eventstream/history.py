"""Reads the stream by position or time, without a consumer to create and delete.

JetStream's batched direct get answers from any place of the stream and keeps no state, so a client
that leaves needs no cleanup and a NATS that restarts loses nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import structlog
from cachetools import LRUCache
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.errors import Error

from bus.connection import describe, parse_headers, taking, until_cancelled
from bus.subjects import EVENTS_ALL, EVENTS_STREAM, events_subject
from eventstream.batch import Batch
from eventstream.copies import Copies, Damage
from eventstream.errors import BusError

_DIRECT_GET = f"$JS.API.DIRECT.GET.{EVENTS_STREAM}"
_TIMEOUT_S = 5.0
CHUNK_BATCHES = 256
CHUNK_BYTES = 1 << 20  # at least one message is returned, regardless of its size
# One of the servers that have a copy answers each read, whichever is quickest. A message that did
# not come is requested again so often; less often where that never helped.
ATTEMPTS, FUTILE_ATTEMPTS, FUTILE_AFTER = 12, 2, 20
_MAX_NODES = 1024  # NATS answers a request for the last of each subject for so many
_MAX_DAMAGE = 1000  # remembered

_log = structlog.get_logger()


class Bounds(NamedTuple):
    """First and last sequence number in the stream; last is first - 1 while it is empty."""

    first: int
    last: int


class Fetched(NamedTuple):
    """Batches, in order, and what was found damaged in single copies on the way."""

    batches: list[Batch]
    damage: list[Damage]


class History:
    """Reads the stream's past. ``max_readers`` fetch at once, others wait.

    Messages that one copy of the stream lacks are read from another.
    """

    def __init__(self, nc: Client, max_readers: int) -> None:
        self._nc = nc
        self._js = nc.jetstream(timeout=_TIMEOUT_S)
        self._slots = asyncio.Semaphore(max_readers)
        self.copies = Copies(nc)
        self.fetches_total = 0
        self.repaired_total = 0  # messages that one copy lacked and another had
        self.replicas = 1  # copies of the stream, as NATS reported last
        self._futile = 0  # times in a row that no copy had the missing message
        self._known: LRUCache[tuple[int, int], list[Damage]] = LRUCache(_MAX_DAMAGE)

    async def bounds(self) -> Bounds:
        """Return the stream's bounds; raise `BusError` if NATS does not answer."""
        try:
            info = await until_cancelled(self._js.stream_info(EVENTS_STREAM))
        except (Error, TimeoutError) as error:
            raise _bus_error("stream", error) from None
        state, self.replicas = info.state, info.config.num_replicas or 1
        return Bounds(max(state.first_seq, 1), state.last_seq)

    async def is_cut(self) -> bool:
        """Return whether NATS had to cut off a damaged file of the only copy.

        nats-server reports it until it starts again, and only with details.
        """
        if self.replicas > 1:  # another copy fills it up
            return False
        subject = f"$JS.API.STREAM.INFO.{EVENTS_STREAM}"
        try:
            asking = self._nc.request(subject, b'{"deleted_details": true}', _TIMEOUT_S)
            reply = await until_cancelled(asking)
        except (Error, TimeoutError) as error:
            raise _bus_error("stream", error) from None
        return bool((json.loads(reply.data).get("state", {}).get("lost") or {}).get("bytes"))

    async def fetch(self, start: int, limit: int = CHUNK_BATCHES) -> Fetched:
        """Return batches from sequence number ``start`` on; empty if there is none yet.

        Where the stream no longer has ``start``, the first is the oldest it has. A number that is
        missing between two batches is missing in every copy.
        """
        batches = await self._fetch_from(start, limit)
        whole: list[Batch] = []
        damage: list[Damage] = []
        wanted = start
        for batch in batches:
            if batch.stream_sequence > wanted:
                found = await self._fetch_again(wanted, batch.stream_sequence - 1)
                whole += found
                damage += await self._name(found)
            whole.append(batch)
            wanted = batch.stream_sequence + 1
        return Fetched(whole, damage)

    async def fetch_node(self, node: str, start: int, limit: int = CHUNK_BATCHES) -> list[Batch]:
        """Return batches of ``node`` from sequence number ``start`` on; empty if there is none yet.

        One that is missing in the copy that answers is missing here.
        """
        subject = events_subject(node)
        wanted = {"seq": start, "next_by_subj": subject, "batch": limit, "max_bytes": CHUNK_BYTES}
        return await self._fetch(wanted)

    async def _fetch_from(self, start: int, limit: int = CHUNK_BATCHES) -> list[Batch]:
        return await self._fetch({"seq": start, "batch": limit, "max_bytes": CHUNK_BYTES})

    async def _fetch_again(self, first: int, last: int) -> list[Batch]:
        """Return ``first`` to ``last``, which one copy skipped, from any other copy."""
        at = max(first, (await self.bounds()).first)
        if self.replicas == 1 or at > last:
            return []
        found: list[Batch] = []
        attempts, behind = 0, last + 1
        while at <= last:
            most = FUTILE_ATTEMPTS if self._futile >= FUTILE_AFTER else ATTEMPTS
            for batch in await self._fetch_from(at, min(last - at + 1, CHUNK_BATCHES)):
                if batch.stream_sequence != at or at > last:
                    behind = min(behind, batch.stream_sequence)
                    break
                found.append(batch)
                at, attempts, behind, self._futile = at + 1, 0, last + 1, 0
            attempts += 1
            if attempts >= most:
                at, attempts, behind = behind, 0, last + 1
                self._futile += 1
        self.repaired_total += len(found)
        return found

    async def _name(self, found: list[Batch]) -> list[Damage]:
        """Return the server whose copy lacks the messages ``found`` elsewhere; logged once."""
        if not found:
            return []
        span = found[0].stream_sequence, found[-1].stream_sequence
        if span not in self._known:
            try:
                damage = (await self.copies.check(*span)).damage
            except BusError as error:
                _log.warning("copy damaged, server unknown", messages=span, error=str(error))
                return [Damage("", *span)]
            for one in damage:
                _log.warning("copy of the stream damaged", **one._asdict())
            self._known[span] = damage
        return self._known[span]

    async def find(self, time_ns: int) -> Batch | None:
        """Return the first batch stored at or after ``time_ns``, if any."""
        seconds, nanos = divmod(time_ns, 1_000_000_000)  # a float would round to microseconds
        time = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        found = await self._fetch({"start_time": f"{time}.{nanos:09d}Z", "batch": 1})
        return found[0] if found else None

    async def last_of_each_node(self, up_to: int, node: str = "") -> list[Batch]:
        """Return the last batch of each node, of those that are not behind message ``up_to``.

        ``node``: of this one only.
        """
        subject = events_subject(node) if node else EVENTS_ALL
        wanted = {"multi_last": [subject], "up_to_seq": up_to, "batch": _MAX_NODES}
        return await self._fetch(wanted)

    async def _fetch(self, request: dict[str, Any]) -> list[Batch]:
        async with self._slots:
            self.fetches_total += 1
            return await until_cancelled(self._get(request))

    async def _get(self, request: dict[str, Any]) -> list[Batch]:
        inbox = self._nc.new_inbox()
        answers: list[tuple[bytes, bytes]] = []
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def take(headers: bytes, data: bytes) -> None:
            status = _status(headers)
            if status is None:
                answers.append((headers, data))
            elif not done.done():
                done.set_result(status)

        try:
            async with taking(self._nc, inbox, take):
                await self._nc.publish(_DIRECT_GET, json.dumps(request).encode(), reply=inbox)
                async with asyncio.timeout(_TIMEOUT_S):
                    status = await done
        except (Error, TimeoutError) as error:
            raise _bus_error("events", error) from None
        if status not in ("204", "404"):  # end of batch; nothing there
            raise BusError(f"events: stream {EVENTS_STREAM}: status {status}")
        return [one for answer in answers if (one := decode_answer(*answer)) is not None]


# The headers of an answer, in the order in which nats-server writes them (`genHeader` and
# `processDirectGet` in server/stream.go); those of the message itself come before.
_SUBJECT = b"\nNats-Subject:"
_PLACE = re.compile(
    rb"\r\nNats-Subject: ([!-~]+)\r\nNats-Sequence: ([0-9]+)\r\nNats-Time-Stamp: ([0-9TZ:.-]+)\r\n"
)
_STATUS = b"NATS/1.0 "


def _status(headers: bytes) -> str | None:
    """Return the status in the first line of ``headers``; None for a message of the stream."""
    if not headers.startswith(_STATUS):
        return None
    words = headers[len(_STATUS) :].split(None, 1)
    return words[0].decode(errors="replace") if words else None


def decode_answer(headers: bytes, data: bytes) -> Batch | None:
    """Return the batch in an answer; None where it has no place in the stream."""
    # A message that has these headers itself was not published there: see `is_reflected`.
    reflected = headers.count(_SUBJECT) != 1
    place = None if reflected else _PLACE.search(headers)
    if place is not None:
        subject, sequence, stored = place[1].decode(), int(place[2]), place[3].decode()
    else:
        named = parse_headers(headers)
        try:
            subject, stored = named["Nats-Subject"], named["Nats-Time-Stamp"]
            sequence = int(named["Nats-Sequence"])
        except (KeyError, ValueError):
            return None
    body = b"" if reflected else data
    return decode(body, subject, sequence, time_ns(stored), keep_parsed=True)


def time_ns(text: str) -> int:
    """Return the time that Go wrote as RFC 3339: nanoseconds without final zeros."""
    fraction = text[19:].strip(".Z")
    return _seconds(text[:19]) * 1_000_000_000 + int(fraction.ljust(9, "0"))


@lru_cache(64)  # many messages are from one second
def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp())


def decode(
    data: bytes, subject: str, sequence: int, stored_ns: int, *, keep_parsed: bool = False
) -> Batch:
    """Return the batch in a message; a malformed message counts as a batch without events.

    So does one that is on the ``subject`` of another node: NATS decides who may publish there.
    """
    try:
        batch = Batch.decode(data, sequence, stored_ns, keep_parsed=keep_parsed)
        if batch.node_name and events_subject(batch.node_name) != subject:
            raise DecodeError("of another node than its subject")
        return batch
    except DecodeError:
        return Batch.decode(b"", sequence, stored_ns)


def _bus_error(step: str, error: Exception) -> BusError:
    return BusError(f"{step}: nats: {describe(error)}")
