"""The bucket of the fleet's policies: followed, and written with compare-and-set."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from nats.aio.client import Client
from nats.errors import Error
from nats.js.errors import APIError, NotFoundError

from bus import direct, policies
from bus.bucket import BucketWatch, Content
from bus.connection import describe
from bus.direct import EXPIRES_HEADER, StoredMessage
from bus.policies import Key
from eventstream.errors import BusError
from gateway.policies import streams
from gateway.policies.signal import Signal
from gateway.policies.stored import NOTHING, Conflict, Stored, change_of, decode
from gateway.policies.streams import HISTORY, TIMEOUT_S, PolicyStreams
from gateway.settings import Settings
from tetra.v1.policies_pb2 import StoredPolicy

_WRONG_SEQUENCE = 10071  # nats-server: JSStreamWrongLastSequenceErrF

_log = structlog.get_logger()


@dataclass(slots=True)
class PolicyStore:
    """The desired policies: a copy that follows the bucket, and the way to change it."""

    nc: Client
    settings: Settings
    changed: Signal = field(default_factory=Signal)
    _stored: dict[Key, Stored] = field(default_factory=dict)
    _watch: BucketWatch = field(init=False)
    _streams: PolicyStreams = field(init=False)

    def __post_init__(self) -> None:
        self._watch = BucketWatch(self._take_all, self._take_one, change_of)
        replicas = self.settings.stream_replicas
        self._streams = PolicyStreams(self.nc, replicas, self._watch.restart)

    def all(self) -> dict[Key, StoredPolicy]:
        """Return every policy that is kept, by key; deleted ones say so."""
        return {key: stored.policy for key, stored in self.kept().items() if not stored.expires}

    def kept(self) -> dict[Key, Stored]:
        """Return what is stored, by key."""
        return {key: self._stored[key] for key in sorted(self._stored)}

    def damaged(self) -> list[Key]:
        """Return the keys whose newest message is not a gateway's."""
        return [key for key, stored in self._stored.items() if stored.damaged]

    async def repair(self, key: Key) -> None:
        """Write the last content that was a gateway's again; raise `Conflict` or `BusError`."""
        stored = self.get(key)
        found = await self.history(key)
        policy = found[-1] if found else stored.policy
        if policy.HasField("policy"):
            await self.write(key, policy, stored)
            _log.warning("policy of the fleet repaired", policy=str(key))

    def get(self, key: Key) -> Stored:
        """Return the stored policy of a key."""
        return self._stored.get(key, NOTHING)

    @property
    def complete(self) -> bool:
        """Whether the bucket has been read."""
        return self._watch.complete.is_set()

    @property
    def sequence(self) -> int:
        """Number of the newest message of the bucket."""
        return self._watch.sequence

    def restart(self) -> None:
        """Read everything again: the connection is a new one."""
        self._watch.restart()

    async def run(self) -> None:
        """Make the bucket where it is missing, and follow it, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run(self.nc))
            tasks.create_task(self._streams.run())

    async def wait_complete(self) -> None:
        """Return when the whole bucket has been read; raise `BusError` if that fails."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._watch.complete.wait()
        except TimeoutError:
            raise BusError("policies: the bucket cannot be read now") from None

    async def read(self, key: Key) -> Stored:
        """Return the stored policy of a key, from the bucket's leader; raise `BusError`."""
        await self.wait_complete()
        js = self.nc.jetstream(timeout=TIMEOUT_S)
        try:
            found = await js.get_last_msg(policies.BUCKET_STREAM, key.subject)
        except NotFoundError:
            if self.get(key).expires:
                del self._stored[key]
            return NOTHING
        except (Error, TimeoutError) as error:
            raise bus_error(error) from None
        known = self.get(key)
        if (found.seq or 0) > known.sequence:
            headers = found.headers or {}
            message = StoredMessage(
                key.subject,
                found.seq or 0,
                int(found.time.timestamp() * 1e9) if found.time else 0,
                found.data or b"",
                reflected="Nats-Subject" in headers,
                expires=EXPIRES_HEADER in headers,
            )
            self._take(message)
        return self.get(key)

    async def write(
        self, key: Key, policy: StoredPolicy, before: Stored, *, forget: bool = False
    ) -> Stored:
        """Replace ``before``; raise `Conflict` if the key has something else, or `BusError`.

        ``forget``: the key's earlier messages go, and after some time this one, too.
        """
        js = self.nc.jetstream(timeout=TIMEOUT_S)
        headers = {"Nats-Expected-Last-Subject-Sequence": str(before.sequence)}
        if forget:
            headers |= {"Nats-Rollup": "sub", EXPIRES_HEADER: f"{streams.FORGOTTEN_S}s"}
        data = policy.SerializeToString()
        try:
            ack = await js.publish(
                key.subject, data, stream=policies.BUCKET_STREAM, headers=headers
            )
        except APIError as error:
            if error.err_code == _WRONG_SEQUENCE:
                raise Conflict(key) from None
            raise bus_error(error) from None
        except (Error, TimeoutError) as error:
            # The value may be stored nevertheless: perhaps only the answer was lost.
            written = await self._look_for(key, policy.change)
            if written is None:
                raise bus_error(error) from None
            return written
        written = Stored(ack.seq, policy, expires=forget, stored_ns=time.time_ns())
        self._note(key, written)
        return written

    async def history(self, key: Key) -> list[StoredPolicy]:
        """Return the values that are kept of a key, oldest first; raise `BusError`."""
        await self.wait_complete()
        found: list[StoredPolicy] = []
        at, more = 1, True
        while more:
            request = {"seq": at, "batch": HISTORY, "next_by_subj": key.subject}
            try:
                messages = await direct.get_messages(self.nc, policies.BUCKET_STREAM, request)
            except (Error, TimeoutError) as error:
                raise bus_error(error) from None
            found += [one for one in (decode(message) for message in messages) if one is not None]
            more = len(messages) == HISTORY
            at = messages[-1].sequence + 1 if messages else at
        return found

    async def _look_for(self, key: Key, change: str) -> Stored | None:
        with suppress(BusError):
            found = await self.read(key)
            if found.policy.change == change:
                return found
        return None

    def _take_all(self, content: Content) -> None:
        if content.replaced:
            _log.warning("bucket of policies was replaced", sequence=content.newest)
            self._stored.clear()
        keys = {self._take(message) for message in content.messages}
        for key in self._stored.keys() - keys:
            if content.is_gone(self._stored[key].sequence):
                del self._stored[key]
        self.changed.set()

    def _take_one(self, message: StoredMessage) -> None:
        self._take(message)

    def _take(self, message: StoredMessage) -> Key | None:
        """Note a message. One that JetStream copied here, or that is malformed, changes nothing.

        Its number counts nevertheless, since the next write has to follow it.
        """
        key = policies.key_of(message.subject)
        if key is None:
            return None
        known = self.get(key)
        policy = decode(message)
        if policy is None:
            _log.warning("policy of the fleet malformed", policy=str(key))
            self._note(key, Stored(message.sequence, known.policy, damaged=True))
        else:
            stored = Stored(
                message.sequence, policy, expires=message.expires, stored_ns=message.stored_ns
            )
            self._note(key, stored)
        return key

    def _note(self, key: Key, stored: Stored) -> None:
        if stored.sequence > self.get(key).sequence:
            self._stored[key] = stored
            self._watch.sequence = max(self._watch.sequence, stored.sequence)
            self.changed.set()


def bus_error(error: Exception) -> BusError:
    """Return the error of NATS as a client's answer."""
    return BusError(f"policies: nats: {describe(error)}")
