"""Changes of the fleet's policies, each carried out on every node that is alive, or nowhere.

A change in two steps: the new revision is stored as candidate, which nodes load and do not switch
on; when all could, it becomes current. A gateway that ends in between leaves a candidate with a
lease, and another gateway removes it (`janitor`).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field

import grpc
import structlog

from bus.policies import Key
from eventstream.errors import BusError
from gateway.errors import RequestError
from gateway.policies import canary
from gateway.policies.audit import Audit
from gateway.policies.nodes import PolicyNodes
from gateway.policies.store import Conflict, PolicyStore, Stored
from gateway.policies.view import View, candidate_wants, failure, in_one_line, is_done, wants
from tetra.v1.node_pb2 import NodeInfo
from tetra.v1.policies_pb2 import (
    ROLLOUT_WHEREVER,
    AuditEntry,
    Canary,
    NodePolicy,
    PolicyCandidate,
    PolicyChange,
    PolicyOrigin,
    PolicySpec,
    StoredPolicy,
)

TIMEOUT_S = 60.0
LEASE_S = 10  # of a candidate, which its gateway renews
_RENEW_S = 4.0
_CLOSE_S = 1.0
_LOOK_EVERY_S = 0.5  # at which nodes are alive

_log = structlog.get_logger()


@dataclass(slots=True)
class Changer:
    """Carries out changes, one at a time for each policy here, by compare-and-set elsewhere."""

    store: PolicyStore
    nodes: PolicyNodes
    view: View
    audit: Audit
    _locks: dict[Key, asyncio.Lock] = field(default_factory=dict)
    _ending: set[asyncio.Future[object]] = field(default_factory=set)

    async def change(
        self,
        key: Key,
        make: Callable[[Stored], PolicySpec],
        *,
        timeout_s: float = TIMEOUT_S,
        canary_of: Canary | None = None,
        interrupt: bool = False,
    ) -> PolicyChange:
        """Carry out the revision that ``make`` returns for what is stored; it raises a refusal.

        ``interrupt``: also while another change is in progress, which then fails.
        """
        async with self._lock(key):
            await self.nodes.refresh()
            before = await self.store.read(key)
            if not interrupt:
                check_quiet(key, before.policy)
            spec = make(before)
            spec.revision = before.policy.last_revision + 1
            return await self._audited(
                key, spec, lambda change: self._carry_out(
                    key, before, spec, change, timeout_s, canary_of
                )
            )  # fmt: skip

    async def promote(
        self, key: Key, make: Callable[[PolicySpec], PolicySpec], timeout_s: float
    ) -> PolicyChange:
        """Load the canary on every selected node; on failure it stays a canary.

        Each attempt has a revision of its own: what a node still reports of an attempt that failed
        is then not taken for its answer to the next.
        """
        async with self._lock(key):
            await self.nodes.refresh()
            before = await self.store.read(key)
            held = canary.running(key, before.policy)
            spec = make(held.spec)
            spec.revision = before.policy.last_revision + 1

            async def carry_out(change: str) -> PolicyChange:
                candidate = PolicyCandidate(
                    spec=spec, running=held.running, canary=held.canary, prepare_all=True
                )
                return await self._in_two_steps(key, before, candidate, change, timeout_s, held)

            return await self._audited(key, spec, carry_out)

    async def abort(self, key: Key, make: Callable[[Stored], PolicySpec]) -> PolicyChange:
        """End a canary: its nodes return to what is current."""
        async with self._lock(key):
            await self.nodes.refresh()
            before = await self.store.read(key)
            held = canary.running(key, before.policy)
            spec = make(before)

            async def carry_out(change: str) -> PolicyChange:
                after = await self.write(key, before, change, current=None, candidate=None)
                current = after.policy.current
                gone = PolicySpec(deleted=True)
                names = set(held.running)

                def done(info: NodeInfo, status: NodePolicy | None) -> bool:
                    wanted = after.policy.HasField("current") and wants(current, info)
                    return is_done(status, current if wanted else gone)

                await self._wait(key, lambda info: info.node_name in names, done, 0, TIMEOUT_S)
                return self._answer(key, after, spec.revision, "")

            return await self._audited(key, spec, carry_out)

    async def write(
        self,
        key: Key,
        before: Stored,
        change: str,
        *,
        current: PolicySpec | None,
        candidate: PolicyCandidate | None,
    ) -> Stored:
        """Store what is wanted; no ``current`` leaves it. Raise `Conflict` or `BusError`."""
        policy = StoredPolicy(change=change, last_revision=before.policy.last_revision)
        policy.policy.name, policy.policy.namespace, policy.policy.domain = key
        if current is not None:
            policy.current.CopyFrom(current)
        elif before.policy.HasField("current"):
            policy.current.CopyFrom(before.policy.current)
        if candidate is not None:
            policy.candidate.CopyFrom(candidate)
        policy.last_revision = max(
            policy.last_revision, policy.current.revision, policy.candidate.spec.revision
        )
        return await self.store.write(key, policy, before)

    async def _carry_out(
        self,
        key: Key,
        before: Stored,
        spec: PolicySpec,
        change: str,
        timeout_s: float,
        canary_of: Canary | None,
    ) -> PolicyChange:
        if canary_of is not None:
            chosen = canary.choose(key, canary_of.percent, self._alive(spec))
            candidate = PolicyCandidate(spec=spec, prepare=chosen, canary=canary_of)
            return await self._in_two_steps(key, before, candidate, change, timeout_s, None)
        if spec.rollout == ROLLOUT_WHEREVER or spec.deleted or not self._must_load(before, spec):
            return await self._at_once(key, before, spec, change, timeout_s)
        candidate = PolicyCandidate(spec=spec, prepare_all=True)
        return await self._in_two_steps(key, before, candidate, change, timeout_s, None)

    def _must_load(self, before: Stored, spec: PolicySpec) -> bool:
        """Return whether a node could fail to do it: it has to load something."""
        if not spec.enabled:
            return False
        current = before.policy.current
        same = current.enabled and not current.deleted and current.yaml == spec.yaml
        return not same or current.nodes != spec.nodes

    async def _at_once(
        self, key: Key, before: Stored, spec: PolicySpec, change: str, timeout_s: float
    ) -> PolicyChange:
        after = await self.write(key, before, change, current=spec, candidate=None)
        had = {i.node_name for i in self.nodes.infos() if self.nodes.status(i.node_name, key)}
        failed, waiting = await self._wait(
            key,
            lambda info: info.node_name in had if spec.deleted else wants(spec, info),
            _done_with(spec),
            0 if spec.deleted else spec.revision,
            timeout_s,
        )
        failed += _silent(waiting, timeout_s)
        if failed and spec.rollout != ROLLOUT_WHEREVER:
            error = f"policy {key}: stored, but not confirmed: {in_one_line(failed)}"
            return self._answer(key, after, spec.revision, error)
        return self._answer(key, after, spec.revision, "")

    async def _in_two_steps(
        self,
        key: Key,
        before: Stored,
        candidate: PolicyCandidate,
        change: str,
        timeout_s: float,
        fallback: PolicyCandidate | None,
    ) -> PolicyChange:
        """Load on all nodes that the candidate names, then switch on, or undo."""
        spec = candidate.spec
        candidate.lease_s = LEASE_S
        held = await self.write(key, before, change, current=None, candidate=candidate)
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            while True:
                left_s = deadline - asyncio.get_running_loop().time()
                failed, waiting = await self._wait(
                    key, lambda info: candidate_wants(candidate, info), _ready(spec), spec.revision,
                    min(left_s, _RENEW_S), held.policy.change,
                )  # fmt: skip
                if failed or not waiting:
                    break
                if left_s <= _RENEW_S:
                    failed = _silent(waiting, timeout_s)
                    break
                renewed = f"{change}.{held.sequence}"
                held = await self.write(key, held, renewed, current=None, candidate=candidate)
        except BaseException:
            await self._finish(self._undo(key, held, change, fallback))
            raise
        if failed:
            after = await self._undo(key, held, change, fallback)
            return self._answer(key, after, spec.revision, _not_done(key, failed), held)
        return await self._switch_on(key, held, candidate, change, timeout_s)

    async def _finish(self, ending: Coroutine[None, None, object]) -> None:
        """Carry it out although this task is cancelled."""
        task = asyncio.ensure_future(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        with contextlib.suppress(RequestError, BusError):
            await asyncio.shield(task)

    async def close(self) -> None:
        """Wait until the changes that were cancelled are undone."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=_CLOSE_S)

    async def _switch_on(
        self,
        key: Key,
        prepared: Stored,
        candidate: PolicyCandidate,
        change: str,
        timeout_s: float,
    ) -> PolicyChange:
        spec = candidate.spec
        if candidate.prepare_all:
            after = await self.write(key, prepared, f"{change}+", current=spec, candidate=None)
            selected: Callable[[NodeInfo], bool] = lambda info: wants(spec, info)  # noqa: E731
        else:
            names = list(candidate.prepare)
            running = PolicyCandidate(spec=spec, running=names, canary=candidate.canary)
            after = await self.write(key, prepared, f"{change}+", current=None, candidate=running)
            selected = lambda info: info.node_name in names  # noqa: E731
        await self._wait(key, selected, _done_with(spec), spec.revision, timeout_s)
        return self._answer(key, after, spec.revision, "")

    async def _undo(
        self, key: Key, prepared: Stored, change: str, fallback: PolicyCandidate | None
    ) -> Stored:
        try:
            return await self.write(key, prepared, f"{change}-", current=None, candidate=fallback)
        except Conflict:  # a later change has removed it already
            return self.store.get(key)

    async def _wait(
        self,
        key: Key,
        selected: Callable[[NodeInfo], bool],
        done: Callable[[NodeInfo, NodePolicy | None], bool],
        revision: int,
        timeout_s: float,
        change: str = "",
    ) -> tuple[list[tuple[str, str]], list[str]]:
        """Return when each selected node that is alive is done, or one has failed, or after a time.

        Returns the nodes that failed, each with its reason, and those that have not answered. With
        ``change`` it ends with `Conflict` when the bucket has another one.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            events = self.nodes.changed.event, self.store.changed.event
            waiting, failed = [], []
            for info in self.nodes.infos():
                if not info.alive or not info.HasField("policies") or not selected(info):
                    continue
                status = self.nodes.status(info.node_name, key)
                if done(info, status):
                    continue
                reason = failure(status, revision) if revision else ""
                if reason:
                    failed.append((info.node_name, reason))
                else:
                    waiting.append(info.node_name)
            if change and self.store.get(key).policy.change != change:
                raise Conflict(key)
            left_s = deadline - asyncio.get_running_loop().time()
            if not waiting or (failed and change) or left_s <= 0:
                return failed, waiting
            await any_of(events, min(left_s, _LOOK_EVERY_S))

    def _alive(self, spec: PolicySpec) -> list[str]:
        return [i.node_name for i in self.nodes.infos() if i.alive and wants(spec, i)]

    def _answer(
        self, key: Key, after: Stored, revision: int, error: str, shown: Stored | None = None
    ) -> PolicyChange:
        answer = PolicyChange(revision=revision, error=error)
        answer.policy.name, answer.policy.namespace, answer.policy.domain = key
        answer.nodes.extend(self.view.nodes(key, (shown or after).policy))
        return answer

    async def _audited(
        self, key: Key, spec: PolicySpec, carry_out: Callable[[str], Awaitable[PolicyChange]]
    ) -> PolicyChange:
        """Carry out a change between two entries of the audit."""
        change = secrets.token_hex(8)
        await self.audit.write(change, key, spec, AuditEntry.OUTCOME_STARTED)
        outcome, error, applied = AuditEntry.OUTCOME_FAILED, "the call was ended", 0
        try:
            answer = await carry_out(change)
            error = answer.error
            applied = sum(node.alive and node.selected for node in answer.nodes)
            if not error:
                outcome = AuditEntry.OUTCOME_APPLIED
            return answer
        except (RequestError, BusError) as refusal:
            error = str(refusal)
            raise
        finally:
            if self.store.get(key).policy.current == spec:  # whether or not the client has waited
                outcome = AuditEntry.OUTCOME_APPLIED
            await self._finish(self.audit.write(change, key, spec, outcome, error, applied))
            _log.info(
                "policy changed" if outcome == AuditEntry.OUTCOME_APPLIED else "policy not changed",
                policy=str(key),
                revision=spec.revision,
                action=PolicyOrigin.Action.Name(spec.origin.action),
                who=spec.origin.who,
                error=error or None,
            )

    def _lock(self, key: Key) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())


def check_quiet(key: Key, stored: StoredPolicy) -> None:
    """Raise `RequestError` while another change, or a canary, is in progress."""
    if not stored.HasField("candidate"):
        return
    origin = stored.candidate.spec.origin
    by = f"by {origin.who} since {origin.time.ToJsonString()}"
    if stored.candidate.lease_s:
        raise RequestError(
            f"policy {key}: another change is in progress, {by}: try again later",
            grpc.StatusCode.ABORTED,
        )
    raise RequestError(
        f"policy {key}: a canary is in progress, {by}: promote or abort it first",
        grpc.StatusCode.FAILED_PRECONDITION,
    )


def _done_with(spec: PolicySpec) -> Callable[[NodeInfo, NodePolicy | None], bool]:
    return lambda _info, status: is_done(status, spec)


def _ready(spec: PolicySpec) -> Callable[[NodeInfo, NodePolicy | None], bool]:
    def ready(_info: NodeInfo, status: NodePolicy | None) -> bool:
        return status is not None and spec.revision in (status.prepared, status.revision)

    return ready


def _silent(nodes: Iterable[str], timeout_s: float) -> list[tuple[str, str]]:
    return [(name, f"no answer in {timeout_s:.0f} s") for name in nodes]


def _not_done(key: Key, failed: Iterable[tuple[str, str]]) -> str:
    return f"policy {key}: not carried out: {in_one_line(failed)}"


async def any_of(events: Iterable[asyncio.Event], timeout_s: float) -> None:
    """Return when one of the events is set, or after ``timeout_s``."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()
