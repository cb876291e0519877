"""Who changed which policy, when, and from where."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import structlog
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.errors import Error

from bus import direct, policies
from bus.connection import until_cancelled
from bus.direct import StoredMessage
from bus.policies import Key
from gateway import rights
from gateway.policies.signal import Signal
from gateway.policies.store import bus_error
from gateway.streams import Context
from tetra.v1.policies_pb2 import AuditEntry, PolicyOrigin, PolicySpec

USER_KEY = "tetra-user"  # request metadata, which the client chooses
_MAX_TEXT = 256
_BATCH = 256
_LOOK_EVERY_S = 1.0
_TIMEOUT_S = 5.0

_log = structlog.get_logger()


def origin_of(
    context: Context, action: PolicyOrigin.Action.ValueType, gateway: str, comment: str = ""
) -> PolicyOrigin:
    """Return who makes this request, when, and from where."""
    metadata = context.invocation_metadata() or ()
    claimed = next((str(value) for key, value in metadata if key == USER_KEY), "")
    origin = PolicyOrigin(
        action=action,
        who=rights.current.get().holder,
        claimed=claimed[:_MAX_TEXT],
        gateway=gateway,
        comment=comment[:_MAX_TEXT],
    )
    setattr(origin, "from", context.peer() or "")
    origin.time.GetCurrentTime()
    return origin


@dataclass(slots=True)
class Audit:
    """Writes entries, and reads them."""

    nc: Client
    written: Signal = field(default_factory=Signal)

    async def write(
        self,
        change: str,
        key: Key,
        spec: PolicySpec,
        outcome: AuditEntry.Outcome.ValueType,
        error: str = "",
        applied: int = 0,
    ) -> None:
        """Store an entry; raise `BusError` where NATS does not take it."""
        entry = AuditEntry(
            change=change,
            origin=spec.origin,
            revision=spec.revision,
            outcome=outcome,
            error=error[: 16 * _MAX_TEXT],
            nodes=spec.nodes,
            enabled=spec.enabled,
            mode=spec.mode,
            yaml_sha256=hashlib.sha256(spec.yaml.encode()).hexdigest() if spec.yaml else "",
            applied=applied,
        )
        entry.policy.name, entry.policy.namespace, entry.policy.domain = key
        entry.time.GetCurrentTime()
        js = self.nc.jetstream(timeout=_TIMEOUT_S)
        try:
            await js.publish(
                policies.AUDIT_SUBJECT, entry.SerializeToString(), stream=policies.AUDIT_STREAM
            )
        except (Error, TimeoutError) as error_:
            raise bus_error(error_) from None
        self.written.set()

    async def read(
        self, since_ns: int, last: int, *, follow: bool
    ) -> AsyncIterator[list[AuditEntry]]:
        """Yield entries, oldest first, and with ``follow`` new ones; raise `BusError`."""
        at = await self._first(since_ns, last)
        while True:
            event = self.written.event
            request = {"seq": at, "batch": _BATCH, "next_by_subj": policies.AUDIT_SUBJECT}
            try:
                reading = direct.get_messages(self.nc, policies.AUDIT_STREAM, request)
                found = await until_cancelled(reading)
            except (Error, TimeoutError) as error:
                raise bus_error(error) from None
            at = found[-1].sequence + 1 if found else at
            entries = [_decode(message) for message in found if message.stored_ns >= since_ns]
            yield [entry for entry in entries if entry is not None]
            if found:
                continue
            if not follow:
                return
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await event.wait()
            except TimeoutError:
                pass

    async def _first(self, since_ns: int, last: int) -> int:
        if not last:
            return 1
        try:
            newest = await direct.get_last(self.nc, policies.AUDIT_STREAM, policies.AUDIT_SUBJECT)
        except (Error, TimeoutError) as error:
            raise bus_error(error) from None
        return max(1, newest.sequence - last + 1) if newest else 1


def _decode(message: StoredMessage) -> AuditEntry | None:
    if message.reflected:
        return None
    try:
        return AuditEntry.FromString(message.data)
    except DecodeError:
        return None
