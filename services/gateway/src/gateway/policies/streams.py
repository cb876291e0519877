"""The streams that policies need, made where they are missing: the bucket, and the audit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from nats.aio.client import Client
from nats.errors import Error
from nats.js import api
from nats.js.errors import APIError, NotFoundError

from bus import policies
from bus.connection import describe, until_cancelled
from bus.subjects import EVENTS_STREAM
from chassis.backoff import Backoff

FORGOTTEN_S = 3600  # for which the last message of a forgotten policy is kept
HISTORY = 64  # values of a key that are kept, which is the most that NATS allows
TIMEOUT_S = 5.0
_SIZES = (256 << 20, 64 << 20, 16 << 20)  # of the bucket: the largest that NATS has room for
_AUDIT_SIZES = (64 << 20, 8 << 20)
_NO_STORAGE = 10047  # nats-server's server/errors.json: JSStorageResourcesExceededErr
_RETRY_MIN_S, _RETRY_MAX_S = 0.2, 5.0

_log = structlog.get_logger()


@dataclass(slots=True)
class PolicyStreams:
    """Creates both with the configured number of copies."""

    nc: Client
    replicas: int
    on_made: Callable[[], None]

    async def run(self) -> None:
        """Check every five seconds, until cancelled."""
        waits = Backoff(_RETRY_MIN_S, _RETRY_MAX_S)
        while True:
            try:
                await until_cancelled(self._ensure_all())
                waits.reset()
                await asyncio.sleep(TIMEOUT_S)
            except NotFoundError:
                await asyncio.sleep(_RETRY_MIN_S)
            except (Error, TimeoutError, OSError) as error:
                if waits.attempts == 0:
                    _log.warning("bucket of policies unavailable", error=describe(error))
                await asyncio.sleep(waits.next_s())

    async def _ensure_all(self) -> None:
        # The event stream is created first, so that it gets its configured size on a small disk.
        await self.nc.jetstream(timeout=TIMEOUT_S).stream_info(EVENTS_STREAM)
        await self._ensure(bucket_config(self.replicas), _SIZES)
        await self._ensure(audit_config(self.replicas), _AUDIT_SIZES)

    async def _ensure(self, wanted: api.StreamConfig, sizes: Sequence[int]) -> None:
        js = self.nc.jetstream(timeout=TIMEOUT_S)
        try:
            found = (await js.stream_info(str(wanted.name))).config
        except NotFoundError:
            await self._make(wanted, sizes)
            return
        if (found.num_replicas, found.allow_rollup_hdrs) != (
            wanted.num_replicas, wanted.allow_rollup_hdrs,
        ):  # fmt: skip
            wanted.max_bytes = found.max_bytes
            await js.update_stream(wanted)
            _log.info("stream updated", stream=wanted.name)

    async def _make(self, wanted: api.StreamConfig, sizes: Sequence[int]) -> None:
        js = self.nc.jetstream(timeout=TIMEOUT_S)
        for size in sizes:
            wanted.max_bytes = size
            try:
                await js.add_stream(wanted)
            except APIError as error:
                if error.err_code != _NO_STORAGE or size == sizes[-1]:
                    raise
            else:
                _log.info("stream made", stream=wanted.name, max_bytes=size)
                self.on_made()
                return


def bucket_config(replicas: int) -> api.StreamConfig:
    """Return the bucket as NATS's clients make a key-value bucket."""
    return api.StreamConfig(
        name=policies.BUCKET_STREAM,
        description="Tracing policies of the fleet",
        subjects=[policies.KEYS_ALL],
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        max_msgs_per_subject=HISTORY,
        num_replicas=replicas,
        duplicate_window=120,
        allow_direct=True,
        deny_delete=True,
        allow_rollup_hdrs=True,
        allow_msg_ttl=True,  # before nats-server 2.11: no effect
        compression=api.StoreCompression.S2,
    )


def audit_config(replicas: int) -> api.StreamConfig:
    """Return the stream of audit entries: they are kept for longer than events."""
    return api.StreamConfig(
        name=policies.AUDIT_STREAM,
        description="Who changed which tracing policy",
        subjects=[policies.AUDIT_SUBJECT],
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.OLD,
        max_age=400 * 24 * 3600,
        num_replicas=replicas,
        duplicate_window=120,
        allow_direct=True,
        deny_delete=True,
        deny_purge=True,
        compression=api.StoreCompression.S2,
    )
