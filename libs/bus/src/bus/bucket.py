"""Follows the bucket of the fleet's policies.

A message on a key's subject only announces a change. Such a message can be one that JetStream then
refused (compare-and-set), or one that never arrived; so the bucket itself is read, again after each
connection, and at intervals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from bus import direct, policies
from bus.connection import until_cancelled
from bus.direct import StoredMessage
from chassis.backoff import Backoff

LOOK_EVERY_S = 30.0  # interval of reads without messages
# Interval of reads after a message: a copy of the bucket may not have it yet.
_LOOKS_S = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
_RETRY_MIN_S, _RETRY_MAX_S = 0.1, 5.0


class Content(NamedTuple):
    """The newest message of every key, up to and with ``newest``.

    ``replaced``: it is another bucket, and the content of the previous one is no longer valid.
    """

    messages: Sequence[StoredMessage]
    newest: int
    replaced: bool

    def is_gone(self, sequence: int) -> bool:
        """Return whether a known message, which is not among these, is no longer there."""
        return self.replaced or sequence <= self.newest


class BucketWatch:
    """Passes the bucket's content on: every key at first and after doubt, then each change."""

    def __init__(
        self,
        on_all: Callable[[Content], None],
        on_change: Callable[[StoredMessage], None],
        change_of: Callable[[bytes], str],
    ) -> None:
        """``change_of`` returns what names a write: the same in the message and in the bucket."""
        self._on_all = on_all
        self._on_change = on_change
        self._change_of = change_of
        self.sequence = 0  # of the newest message that was read
        self._newest = 0  # in the bucket, when it was read last
        # The newest message of each subject, and whether it expires.
        self._known: dict[str, tuple[int, bool]] = {}
        self.complete = asyncio.Event()  # every key has been read
        self._resync = asyncio.Event()
        # Subjects with the change that a message announced, and the sequence known then.
        self._announced: dict[str, tuple[str, int]] = {}
        self._was_announced = asyncio.Event()

    def restart(self) -> None:
        """Read everything again: messages may have been missed."""
        self._resync.set()

    async def run(self, nc: Client) -> None:
        """Follow the bucket until cancelled; it need not exist yet."""
        await until_cancelled(nc.subscribe(policies.KEYS_ALL, cb=self._on_message))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_messages(nc))
            tasks.create_task(self._sync_forever(nc))

    async def _on_message(self, message: Msg) -> None:
        self._announced[message.subject] = self._change_of(message.data), self.sequence
        self._was_announced.set()

    async def _sync_forever(self, nc: Client) -> None:
        waits, complete = Backoff(_RETRY_MIN_S, _RETRY_MAX_S), False
        while True:
            self._resync.clear()
            wait_s = LOOK_EVERY_S
            try:
                if not complete or await until_cancelled(self._is_behind(nc)):
                    await until_cancelled(self.sync(nc))
                complete = True
                waits.reset()
            except (Error, TimeoutError, OSError):
                wait_s = waits.next_s()  # there is no bucket yet, or NATS is unreachable
            try:
                async with asyncio.timeout(wait_s):
                    await self._resync.wait()
                complete = False
            except TimeoutError:
                continue

    async def _is_behind(self, nc: Client) -> bool:
        last = await direct.get_last(nc, policies.BUCKET_STREAM, policies.KEYS_ALL)
        return (last.sequence if last else 0) != self._newest

    async def sync(self, nc: Client) -> None:
        """Read every key; raise `nats.errors.Error`.

        A copy of the bucket can be behind another; if all are for some time, it is a new bucket.
        Messages that are newer than what is read can come meanwhile.
        """
        request = {"multi_last": [policies.KEYS_ALL]}
        known = self.sequence
        found: list[StoredMessage] = []
        newest = -1
        for wait_s in _LOOKS_S:
            await asyncio.sleep(wait_s)
            found = await direct.get_messages(nc, policies.BUCKET_STREAM, request)
            newest = max((message.sequence for message in found), default=0)
            if not self._is_another(known, found, newest):
                break
        replaced = self._is_another(known, found, newest)
        self.sequence = newest if replaced else max(self.sequence, newest)
        self._newest = newest
        later = {} if replaced else {s: one for s, one in self._known.items() if one[0] > newest}
        self._known = {one.subject: (one.sequence, one.expires) for one in found} | later
        self._on_all(Content(found, newest, replaced))
        self.complete.set()

    def _is_another(self, known: int, found: Sequence[StoredMessage], newest: int) -> bool:
        """Return whether messages up to ``known`` were there, and are gone without expiring."""
        if newest >= known:
            return False
        there = {message.subject for message in found}
        gone = {s: one for s, one in self._known.items() if newest < one[0] <= known}
        if known not in (sequence for sequence, _ in gone.values()):
            return True
        return any(subject in there or not expires for subject, (_, expires) in gone.items())

    async def _follow_messages(self, nc: Client) -> None:
        """Read the announced keys until the announced changes are there."""
        looks = 0
        while True:
            if not self._announced:
                await self._was_announced.wait()
            if self._was_announced.is_set():
                self._was_announced.clear()
                looks = 0
            await asyncio.sleep(_LOOKS_S[looks])
            looks += 1
            try:
                await until_cancelled(self._look(nc))
            except (Error, TimeoutError, OSError):
                self._announced.clear()
                self._resync.set()
            if looks == len(_LOOKS_S) and not self._was_announced.is_set():
                self._announced.clear()  # JetStream refused these

    async def _look(self, nc: Client) -> None:
        for subject, announced in list(self._announced.items()):
            found = await direct.get_last(nc, policies.BUCKET_STREAM, subject)
            if found is None:
                continue
            change, known = announced
            arrived = found.sequence > known or self._change_of(found.data) == change
            if arrived and self._announced.get(subject) == announced:
                del self._announced[subject]
            self.sequence = max(self.sequence, found.sequence)
            self._newest = max(self._newest, found.sequence)
            if found.sequence > self._known.get(subject, (0, False))[0]:
                self._known[subject] = found.sequence, found.expires
            self._on_change(found)
