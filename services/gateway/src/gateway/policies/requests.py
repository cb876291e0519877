"""Requests to change policies: the new revision that each makes from the stored policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from google.protobuf.duration_pb2 import Duration

from bus.policies import Key
from gateway.errors import RequestError
from gateway.policies import canary, documents
from gateway.policies.changes import Changer
from gateway.policies.rollout import TIMEOUT_S
from gateway.policies.stored import Stored
from gateway.policies.view import exists
from tetra.v1.policies_pb2 import (
    AddPolicyRequest,
    Canary,
    ConfigurePolicyRequest,
    PolicyChange,
    PolicyOrigin,
    PolicySpec,
    RollbackPolicyRequest,
    StoredPolicy,
)
from tetragon.sensors_pb2 import TP_MODE_MONITOR_ONLY

_MAX_TIMEOUT_S = 600.0
# Makes the origin of a change from its action.
Origin = Callable[["PolicyOrigin.Action.ValueType"], PolicyOrigin]


@dataclass(slots=True)
class Requests:
    """The changes that both services offer; each raises `RequestError`."""

    changer: Changer
    reader: documents.Documents = field(default_factory=documents.Documents)

    async def add(self, request: AddPolicyRequest, origin: Origin) -> PolicyChange:
        """Load a new policy, or a new revision."""
        key = await self.reader.key(request.yaml, request.domain)
        nodes = documents.granted_selector(request.nodes)
        canary_of = request.canary if request.HasField("canary") else None
        if canary_of is not None:
            canary.check(canary_of)

        def make(before: Stored) -> PolicySpec:
            there = exists(before.policy)
            if there:
                self._check_replace(key, request, before.policy)
            others = self.changer.store.all().items()
            documents.check_room(key, request.yaml, others)
            action = PolicyOrigin.ACTION_REPLACE if there else PolicyOrigin.ACTION_ADD
            if canary_of is not None:
                action = PolicyOrigin.ACTION_CANARY
            spec = PolicySpec(
                yaml=request.yaml, enabled=True, nodes=nodes, rollout=request.rollout,
                origin=origin(action),
            )  # fmt: skip
            if request.HasField("mode"):
                spec.mode = documents.mode_of(request.mode)
            return spec

        return await self._change(key, make, request.timeout, canary_of)

    def _check_replace(self, key: Key, request: AddPolicyRequest, stored: StoredPolicy) -> None:
        documents.check_granted(stored.current.nodes)
        revision = stored.current.revision
        if not request.replace:
            raise RequestError(
                f"failed to add tracing policy {key}, a sensor collection with the key already "
                "exists",
                grpc.StatusCode.ALREADY_EXISTS,
            )
        if request.expected_revision and request.expected_revision != revision:
            raise RequestError(
                f"policy {key}: revision {revision} is current, not {request.expected_revision}",
                grpc.StatusCode.ABORTED,
            )

    async def delete(self, key: Key, origin: Origin) -> PolicyChange:
        """Remove a policy everywhere; also one that is being changed, or a canary."""

        def make(before: Stored) -> PolicySpec:
            spec = _existing(key, before.policy)
            return PolicySpec(
                nodes=spec.nodes, deleted=True, origin=origin(PolicyOrigin.ACTION_DELETE)
            )

        return await self.changer.change(key, make, interrupt=True)

    async def configure(
        self, key: Key, request: ConfigurePolicyRequest, origin: Origin
    ) -> PolicyChange:
        """Enable, disable, set mode and nodes."""
        selector = documents.granted_selector(request.nodes) if request.HasField("nodes") else None
        disabling = request.HasField("enable") and not request.enable

        def make(before: Stored) -> PolicySpec:
            spec = PolicySpec()
            spec.CopyFrom(_existing(key, before.policy))
            action = PolicyOrigin.ACTION_CONFIGURE
            if request.HasField("mode"):
                self._check_mode(key, spec)
                spec.mode = documents.mode_of(request.mode)
            if request.HasField("enable"):
                action = _set_enabled(key, spec, request.enable)
            if selector is not None:
                spec.nodes.CopyFrom(selector)
            spec.rollout = request.rollout
            spec.origin.CopyFrom(origin(action))
            return spec

        return await self._change(key, make, request.timeout, interrupt=disabling)

    def _check_mode(self, key: Key, spec: PolicySpec) -> None:
        if not spec.enabled:
            raise RequestError(
                f"tracing policy {key.name} is disabled: enable it to set its mode",
                grpc.StatusCode.FAILED_PRECONDITION,
            )
        # A node that is away, or has an earlier revision, says nothing of this document.
        nodes = self.changer.nodes
        statuses = [nodes.status(info.node_name, key) for info in nodes.infos() if info.alive]
        if any(
            one is not None and one.mode == TP_MODE_MONITOR_ONLY and one.revision == spec.revision
            for one in statuses
        ):
            raise RequestError(
                "cannot set policy mode on a policy that is monitor only",
                grpc.StatusCode.FAILED_PRECONDITION,
            )

    async def rollback(
        self, key: Key, request: RollbackPolicyRequest, origin: Origin
    ) -> PolicyChange:
        """Make an earlier revision a new one."""
        earlier = revisions(await self.changer.store.history(key))
        if not earlier:
            raise documents.missing(key)

        def make(before: Stored) -> PolicySpec:
            found = _earlier(key, request.revision, earlier)
            documents.check_granted(earlier[0].nodes)
            documents.check_granted(found.nodes)
            documents.check_room(key, found.yaml, self.changer.store.all().items())
            spec = PolicySpec()
            spec.CopyFrom(found)
            spec.rollout = request.rollout
            spec.origin.CopyFrom(origin(PolicyOrigin.ACTION_ROLLBACK))
            spec.origin.from_revision = found.revision
            return spec

        return await self._change(key, make, request.timeout)

    async def promote(self, key: Key, limit: Duration, origin: Origin) -> PolicyChange:
        """Load the canary everywhere."""

        def make(spec: PolicySpec) -> PolicySpec:
            documents.check_granted(spec.nodes)
            promoted = PolicySpec()
            promoted.CopyFrom(spec)
            promoted.origin.CopyFrom(origin(PolicyOrigin.ACTION_PROMOTE))
            return promoted

        return await self.changer.promote(key, make, timeout_s(limit))

    async def abort(self, key: Key, origin: Origin) -> PolicyChange:
        """End the canary."""

        def make(before: Stored) -> PolicySpec:
            spec = PolicySpec()
            spec.CopyFrom(before.policy.candidate.spec)
            documents.check_granted(spec.nodes)
            spec.origin.CopyFrom(origin(PolicyOrigin.ACTION_ABORT))
            return spec

        return await self.changer.abort(key, make)

    async def _change(
        self,
        key: Key,
        make: Callable[[Stored], PolicySpec],
        limit: Duration,
        canary_of: Canary | None = None,
        *,
        interrupt: bool = False,
    ) -> PolicyChange:
        return await self.changer.change(
            key, make, timeout_s=timeout_s(limit), canary_of=canary_of, interrupt=interrupt
        )


def timeout_s(timeout: Duration) -> float:
    """Return the seconds of a request's timeout; raise `RequestError`."""
    wanted_s = timeout.ToNanoseconds() / 1e9
    if not 0 <= wanted_s <= _MAX_TIMEOUT_S:
        raise RequestError(f"timeout: {wanted_s:g} s: expected up to {_MAX_TIMEOUT_S:.0f} s")
    return wanted_s or TIMEOUT_S


def revisions(history: list[StoredPolicy]) -> list[PolicySpec]:
    """Return the revisions that were current, newest first."""
    found: dict[int, PolicySpec] = {}
    for stored in history:
        if stored.HasField("current"):
            found[stored.current.revision] = stored.current
    return [found[number] for number in sorted(found, reverse=True)]


def _existing(key: Key, stored: StoredPolicy) -> PolicySpec:
    if not exists(stored):
        raise documents.missing(key)
    has_current = stored.HasField("current") and not stored.current.deleted
    spec = stored.current if has_current else stored.candidate.spec
    documents.check_granted(spec.nodes)
    return spec


def _set_enabled(key: Key, spec: PolicySpec, wanted: bool) -> PolicyOrigin.Action.ValueType:
    if wanted == spec.enabled:
        what = "disabled" if wanted else "enabled"
        raise RequestError(
            f"tracing policy {key.name} is not {what}", grpc.StatusCode.FAILED_PRECONDITION
        )
    spec.enabled = wanted
    return PolicyOrigin.ACTION_ENABLE if wanted else PolicyOrigin.ACTION_DISABLE


def _earlier(key: Key, revision: int, earlier: list[PolicySpec]) -> PolicySpec:
    """Return a revision with a document, by default the one before the current."""
    for spec in earlier:
        if spec.deleted:
            continue
        if spec.revision == revision or (not revision and spec is not earlier[0]):
            return spec
    what = f"revision {revision} is not" if revision else "no earlier revision is"
    raise RequestError(f"tracing policy {key}: {what} kept", grpc.StatusCode.NOT_FOUND)
