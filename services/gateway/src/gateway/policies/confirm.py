"""What the nodes confirm: that they carried out a write of the bucket, or why they could not.

A node's status names the write whose outcome it reports. A status that names an earlier write is
never used as the answer to a later one: it may have been sent before, and revisions start again in
a bucket that was created again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from bus.policies import Key
from gateway.policies.nodes import PolicyNodes
from gateway.policies.signal import any_of
from gateway.policies.store import PolicyStore
from gateway.policies.stored import Conflict, Stored
from gateway.policies.view import candidate_wants, wants
from tetra.v1.node_pb2 import NodeInfo
from tetra.v1.policies_pb2 import NodePolicy, PolicySpec, StoredPolicy
from tetragon.sensors_pb2 import TP_STATE_LOADING

_LOOK_EVERY_S = 0.5  # at which nodes are alive


class Write(NamedTuple):
    """A write of a policy."""

    key: Key
    change: str
    sequence: int

    @classmethod
    def of(cls, key: Key, stored: Stored) -> Write:
        """Return the write that stored ``stored``."""
        return cls(key, stored.policy.change, stored.sequence)

    def renewal(self, sequence: int) -> str:
        """Return the name of a write that only renews the lease of this one's candidate."""
        return f"{self.change}.{sequence}"

    def is_named(self, change: str) -> bool:
        """Return whether this is the write ``change``, or was renewed by it."""
        return change == self.change or change.startswith(f"{self.change}.")


class Report(NamedTuple):
    """The last report of a node about a policy; empty if the node does not have the policy.

    ``applied``: the last message of the bucket that the node has carried out; None: an older
    collector, which reports neither this nor the write.
    """

    status: NodePolicy | None
    applied: int | None

    def answers(self, write: Write) -> bool:
        """Return whether this is the outcome of ``write``, not of an earlier one."""
        if self.applied is None:
            return True
        if self.status is None:
            return self.applied >= write.sequence
        return write.is_named(self.status.change)

    def has_loaded(self, write: Write, revision: int) -> bool:
        """Return whether the node has loaded a revision: it is on, or waits to be switched on."""
        if self.status is None or not self.answers(write):
            return False
        return revision in (self.status.prepared, self.status.revision)

    def is_on(self, write: Write, revision: int) -> bool:
        """Return whether the node has carried out a revision."""
        if self.status is None or not self.answers(write):
            return False
        return self.status.revision == revision

    def is_without(self, write: Write) -> bool:
        """Return whether the node no longer has any part of the policy."""
        if self.applied is not None and self.applied < write.sequence:
            return False
        status = self.status
        if status is None:
            return True
        return not (status.revision or status.prepared or status.state == TP_STATE_LOADING)

    def failure(self, write: Write) -> str:
        """Return why the node could not carry out ``write``; empty if it has not failed."""
        if self.status is None or not self.answers(write):
            return ""
        return self.status.error


Selected = Callable[[NodeInfo], bool]
Done = Callable[[NodeInfo, Report], bool]


@dataclass(slots=True)
class Outcome:
    """The nodes that failed, each with its reason, and those that have not answered."""

    failed: list[tuple[str, str]]
    waiting: list[str]

    def errors(self, timeout_s: float) -> list[tuple[str, str]]:
        """Return each node that has not done it, with the reason."""
        silent = [(name, f"no answer in {timeout_s:.0f} s") for name in self.waiting]
        return self.failed + silent


@dataclass(slots=True)
class Confirmations:
    """Waits for the nodes."""

    store: PolicyStore
    nodes: PolicyNodes

    async def wait(
        self,
        write: Write,
        selected: Selected,
        done: Done,
        timeout_s: float,
        *,
        until_failure: bool = False,
    ) -> Outcome:
        """Return when each selected node that is alive is done or failed, or after a time.

        ``until_failure``: also when one has failed. Raise `Conflict` when the bucket has a later
        write.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            events = self.nodes.changed.event, self.store.changed.event
            outcome = self._now(write, selected, done)
            if not write.is_named(self.store.get(write.key).policy.change):
                raise Conflict(write.key)
            left_s = deadline - asyncio.get_running_loop().time()
            if not outcome.waiting or (outcome.failed and until_failure) or left_s <= 0:
                return outcome
            await any_of(events, min(left_s, _LOOK_EVERY_S))

    def _now(self, write: Write, selected: Selected, done: Done) -> Outcome:
        outcome = Outcome([], [])
        for info in self.nodes.infos():
            if not info.alive or not info.HasField("policies") or not selected(info):
                continue
            report = self.report(info.node_name, write.key)
            if done(info, report):
                continue
            reason = report.failure(write)
            if reason:
                outcome.failed.append((info.node_name, reason))
            else:
                outcome.waiting.append(info.node_name)
        return outcome

    def report(self, node: str, key: Key) -> Report:
        """Return what a node reported last."""
        return Report(self.nodes.status(node, key), self.nodes.applied(node))

    def concerned(self, key: Key, *policies: StoredPolicy) -> Selected:
        """Select the nodes that one of ``policies`` selects, or that have it loaded."""

        def selected(info: NodeInfo) -> bool:
            if self.nodes.status(info.node_name, key) is not None:
                return True
            return any(
                active(one, info) is not None
                or (one.HasField("candidate") and candidate_wants(one.candidate, info))
                for one in policies
            )

        return selected


def active(policy: StoredPolicy, info: NodeInfo) -> PolicySpec | None:
    """Return the revision that a node has to run."""
    if policy.HasField("candidate") and info.node_name in policy.candidate.running:
        return policy.candidate.spec
    if policy.HasField("current") and wants(policy.current, info):
        return policy.current
    return None


def carried_out(write: Write, policy: StoredPolicy) -> Done:
    """Return whether a node runs exactly what ``policy`` wants there, which may be nothing."""

    def done(info: NodeInfo, report: Report) -> bool:
        spec = active(policy, info)
        return report.is_on(write, spec.revision) if spec else report.is_without(write)

    return done
