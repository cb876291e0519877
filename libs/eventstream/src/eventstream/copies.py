"""The copies of the stream, one on each of NATS's servers: which messages each of them lacks.

A nats-server that finds a wrong checksum leaves the message out of all answers and reports nothing.
Other copies still have the message. A copy is read through a consumer that exists on its server
alone, for headers only: the server reads and checks the wgap message for that.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from nats.aio.client import Client
from nats.errors import Error
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import api
from nats.js.errors import APIError

from bus.connection import cancellable
from bus.subjects import EVENTS_STREAM
from chassis.backoff import Backoff
from eventstream.errors import BusError

# NATS chooses the server of a consumer; after this many, each of three servers has had one.
_PLACEMENTS = 48
_CHUNK_MESSAGES = 500
_SILENCE_S, _SILENCES = 4.0, 3  # a server that has a message sends it within these together
_RETRY_MIN_S, _RETRY_MAX_S = 0.1, 0.5
_FAILURES = (Error, APIError, TimeoutError)


class Damage(NamedTuple):
    """Messages ``first`` to ``last`` are missing in the copy of ``server``; another has them."""

    server: str
    first: int
    last: int


class Report(NamedTuple):
    """The messages that single copies lack, and the servers whose copy could not be read."""

    damage: list[Damage]
    unreachable: list[str]


class Copies:
    """Reads each copy on its own."""

    def __init__(self, nc: Client) -> None:
        self._js = nc.jetstream(timeout=5.0)

    @cancellable
    async def check(self, first: int, last: int) -> Report:
        """Return what single copies lack of the messages ``first`` to ``last``.

        Raises `BusError` where NATS does not answer at all.
        """
        try:
            info = await self._js.stream_info(EVENTS_STREAM)
            if info.cluster is None or not info.cluster.replicas or first > last:
                return Report([], [])
            names = (info.cluster.leader, *(peer.name for peer in info.cluster.replicas))
            servers = {name for name in names if name}
            found = await self._read_each(servers, first, last)
            oldest = (await self._js.stream_info(EVENTS_STREAM)).state.first_seq
        except _FAILURES as error:
            raise BusError(f"copies: nats: {str(error) or type(error).__name__}") from None
        damage = [
            Damage(server, *part)
            for server, lacking in sorted(found.items())
            for gap in lacking
            for part in _had_by_another(gap, server, found, oldest)
        ]
        return Report(damage, sorted(servers - found.keys()))

    async def _read_each(
        self, servers: set[str], first: int, last: int
    ) -> dict[str, list[tuple[int, int]]]:
        found: dict[str, list[tuple[int, int]]] = {}
        waits = Backoff(_RETRY_MIN_S, _RETRY_MAX_S)
        for _ in range(_PLACEMENTS):
            if found.keys() >= servers:
                break
            try:
                await self._read_one(servers, found, first, last)
                waits.reset()
            except _FAILURES:  # a server that has just started, or is down
                await waits.wait()
        return found

    async def _read_one(
        self, servers: set[str], found: dict[str, list[tuple[int, int]]], first: int, last: int
    ) -> None:
        """Make a consumer; if it lives on a server that is still to be read, read all there."""
        consumer = await self._js.add_consumer(
            EVENTS_STREAM,
            api.ConsumerConfig(
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=first,
                ack_policy=api.AckPolicy.NONE,
                mem_storage=True,
                num_replicas=1,
                headers_only=True,
                inactive_threshold=60.0,
            ),
        )
        try:
            server = consumer.cluster.leader if consumer.cluster else None
            if server in servers and server not in found:
                found[server] = await self._lacking(consumer.name, first, last)
        finally:
            with contextlib.suppress(*_FAILURES):  # NATS removes it when it is unused
                await self._js.delete_consumer(EVENTS_STREAM, consumer.name)

    async def _lacking(self, consumer: str, first: int, last: int) -> list[tuple[int, int]]:
        """Return the ranges of messages that do not come from the server of ``consumer``."""
        gaps: list[tuple[int, int]] = []
        wanted, silences = first, 0
        subscription = await self._js.pull_subscribe_bind(consumer, stream=EVENTS_STREAM)
        try:
            while wanted <= last:
                count = min(_CHUNK_MESSAGES, last - wanted + 1)
                try:
                    messages = await subscription.fetch(count, timeout=_SILENCE_S)
                except NatsTimeoutError:  # nothing more that it could send, or a slow server
                    silences += 1
                    if silences == _SILENCES:
                        break
                    continue
                silences = 0
                for message in messages:
                    at = message.metadata.sequence.stream
                    if at > wanted:
                        gaps.append((wanted, min(at - 1, last)))
                    wanted = at + 1
        finally:
            await subscription.unsubscribe()
        if wanted <= last:
            gaps.append((wanted, last))
        return gaps


def _had_by_another(
    gap: tuple[int, int], server: str, found: dict[str, list[tuple[int, int]]], oldest: int
) -> list[tuple[int, int]]:
    """Return the parts of ``gap`` that are there in another copy, and not too old by now."""
    parts: list[tuple[int, int]] = []
    for at in range(max(gap[0], oldest), gap[1] + 1):
        if all(
            any(first <= at <= last for first, last in lacking)
            for other, lacking in found.items()
            if other != server
        ):
            continue
        if parts and parts[-1][1] == at - 1:
            parts[-1] = (parts[-1][0], at)
        else:
            parts.append((at, at))
    return parts
