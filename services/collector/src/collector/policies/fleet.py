"""Policies of the fleet: makes the manager load what the bucket specifies for this node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from google.protobuf.message import DecodeError
from nats.aio.client import Client

from bus import policies
from bus.bucket import BucketWatch, Content
from bus.direct import StoredMessage
from bus.policies import Key
from collector.policies import desired, kept
from collector.policies.desired import Node
from collector.policies.entry import Identity, Wanted
from collector.policies.manager import PolicyManager
from tetra.v1.policies_pb2 import StoredPolicy

if TYPE_CHECKING:
    from tracingpolicy.model import Policy

WAIT_FOR_BUCKET_S = 1.0  # before what was saved is loaded

log = structlog.get_logger()


class FleetPolicies:
    """The desired policies of this node from the bucket, and the progress of loading them."""

    def __init__(
        self,
        node: Node,
        manager: PolicyManager,
        parse: Callable[[str, str], Policy],
        folder: Path | None,
    ) -> None:
        """``folder`` stores the content read last; None: nothing is stored."""
        self.node = node
        self._manager = manager
        self._parse = parse
        self._folder = folder
        self._bucket = BucketWatch(self._take_all, self._take_one, _change_of)
        self._stored: dict[Key, tuple[int, StoredPolicy]] = {}
        self._parsed: dict[Key, desired.Parsed] = {}
        self._leases: dict[Key, tuple[str, float]] = {}  # change and end, of preparations
        self._changed: set[Key] = set()
        self._work = asyncio.Event()
        self.applied = 0  # what the messages up to this one want is carried out, or has failed
        self._unsaved = asyncio.Event()

    @property
    def sequence(self) -> int:
        """Number of the newest message of the bucket that was read."""
        return self._bucket.sequence

    def on_connection(self, connected: bool) -> None:
        """Read the bucket again: messages may have been missed."""
        if connected:
            self._bucket.restart()

    async def run(self, connected: asyncio.Future[Client]) -> None:
        """Follow the bucket until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._apply_forever())
            tasks.create_task(self._begin_with_saved())
            tasks.create_task(self._save_forever())
            await asyncio.wait({connected})
            await self._bucket.run(connected.result())

    async def _begin_with_saved(self) -> None:
        """Use the saved policies, unless the bucket can be read soon."""
        saved = kept.load(self._folder) if self._folder is not None else {}
        newest = max((sequence for sequence, _ in saved.values()), default=0)
        self._bucket.sequence = max(self._bucket.sequence, newest)
        try:
            async with asyncio.timeout(WAIT_FOR_BUCKET_S):
                await self._bucket.complete.wait()
        except TimeoutError:
            if saved and not self._bucket.complete.is_set():
                log.info("bucket unreachable: policies of the fleet as saved", policies=len(saved))
                self._stored = saved
                self._mark(*saved)

    def _take_all(self, content: Content) -> None:
        """Note the content of the bucket; a missing policy is no longer desired."""
        if content.replaced:
            log.warning("bucket of policies was replaced", sequence=content.newest)
            self.applied = 0
        keys = set()
        for message in content.messages:
            key = policies.key_of(message.subject)
            known = self._stored.get(key) if key else None
            if known is None or message.sequence > known[0] or content.replaced:
                key = self._take(message)
            keys.add(key)
        gone = [
            key
            for key, (sequence, _) in self._stored.items()
            if key not in keys and content.is_gone(sequence)
        ]
        for key in gone:
            del self._stored[key]
        self._mark(*gone)
        self._save()

    def _take_one(self, message: StoredMessage) -> None:
        key = policies.key_of(message.subject)
        known = self._stored.get(key) if key else None
        if known is None or message.sequence > known[0]:
            self._take(message)
            self._work.set()
            self._save()

    def _take(self, message: StoredMessage) -> Key | None:
        """Note a key's content; return the key, None for what is not to be used.

        A message that JetStream copied here, or that is malformed, changes nothing.
        """
        key = policies.key_of(message.subject)
        if key is None or key.domain in (policies.STATIC_DOMAIN, policies.TRY_DOMAIN):
            return None
        before = self._stored.get(key)
        stored = None if message.reflected else _decode(message.data, key)
        if stored is None:
            log.warning("policy of the fleet malformed", policy=str(key))
            return key if before is not None else None
        if before is None or before[1] != stored:
            self._mark(key)
            active = desired.specs(stored, self.node).active
            if active is None or not active.enabled:
                self._manager.switch_off(Identity(*key))  # even while something is being compiled
        self._stored[key] = message.sequence, stored
        return key

    def _mark(self, *keys: Key) -> None:
        self._changed.update(keys)
        self._work.set()

    def _save(self) -> None:
        self._unsaved.set()

    async def _save_forever(self) -> None:
        """Save the content to disk; the event loop does not wait for the sync.

        When it is cancelled it first saves what came last: the next start may be without NATS.
        """
        if self._folder is None:
            return
        saving: asyncio.Task[None] | None = None
        try:
            while True:
                await self._unsaved.wait()
                saving = self._start_saving(self._folder)
                await asyncio.shield(saving)
        finally:
            if saving is not None:
                await asyncio.wait((saving,))
            if self._unsaved.is_set():
                await self._start_saving(self._folder)

    def _start_saving(self, folder: Path) -> asyncio.Task[None]:
        self._unsaved.clear()
        return asyncio.create_task(asyncio.to_thread(kept.save, folder, dict(self._stored)))

    async def _apply_forever(self) -> None:
        """Hand changes to the manager; a policy that is slow to load delays no reading."""
        while True:
            try:
                async with asyncio.timeout(self._next_lease_s()):
                    await self._work.wait()
            except TimeoutError:
                pass
            self._work.clear()
            read = self._bucket.sequence
            changed, self._changed = self._changed, set()
            changed |= self._expired()
            try:
                await self._manager.apply([self._wanted(key) for key in sorted(changed)])
            except Exception:  # an error here must not end the base events
                log.exception("policies of the fleet not applied")
            else:
                self.applied = max(self.applied, read)
                self._manager.on_change()

    def _wanted(self, key: Key) -> Wanted:
        stored = self._stored.get(key)
        if stored is None:
            self._parsed.pop(key, None)
            self._leases.pop(key, None)
            return Wanted(Identity(*key))
        policy = stored[1]
        found = desired.specs(policy, self.node, expired=self._lease_is_over(key, policy))
        known = self._parsed.get(key, [])
        wanted, self._parsed[key] = desired.wanted(key, policy.change, found, self._parse, known)
        return wanted

    def _lease_is_over(self, key: Key, stored: StoredPolicy) -> bool:
        """Whether a preparation is as old as its lease, by the time since it was first seen."""
        lease_s = stored.candidate.lease_s
        if not lease_s:
            self._leases.pop(key, None)
            return False
        known = self._leases.get(key)
        if known is None or known[0] != stored.change:
            known = self._leases[key] = stored.change, time.monotonic() + lease_s
        return time.monotonic() >= known[1]

    def _next_lease_s(self) -> float | None:
        now = time.monotonic()
        ahead = [end - now for _, end in self._leases.values() if end > now]
        return min(ahead) + 0.01 if ahead else None

    def _expired(self) -> set[Key]:
        now = time.monotonic()
        return {key for key, (_, end) in self._leases.items() if end <= now}


def _change_of(data: bytes) -> str:
    try:
        return StoredPolicy.FromString(data).change
    except DecodeError:
        return ""


def _decode(data: bytes, key: Key) -> StoredPolicy | None:
    try:
        stored = StoredPolicy.FromString(data)
    except DecodeError:
        return None
    ref = stored.policy
    return stored if Key(ref.name, ref.namespace, ref.domain) == key else None
