"""Tracing policies that are resources of the API server: loads them, and writes their status.

A resource's status has an entry for each node, which that node alone writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from collector.errors import KubernetesError
from collector.kubernetes.client import ApiClient, Resource
from collector.kubernetes.follow import Follower
from collector.kubernetes.node import KubernetesNode
from collector.policies.entry import Entry, Identity, Revision, State, Wanted
from collector.policies.workloads import selects
from tracingpolicy.model import Policy, PolicyKind
from tracingpolicy.position import PolicyErrors

DOMAIN = "k8s"
_API = "cilium.io/v1alpha1"
_PATHS = {
    PolicyKind.TRACING_POLICY: f"/apis/{_API}/tracingpolicies",
    PolicyKind.NAMESPACED: f"/apis/{_API}/tracingpoliciesnamespaced",
}
_GATHER_S = 0.1  # states that follow each other at once are one change of a status
_RETRY_S = 5.0
_MESSAGE_MAX = 2048  # characters
_MESSAGES = {
    State.ENABLED: "loaded",
    State.PARTIALLY_ENABLED: "loaded, without the hooks that this kernel does not have",
    State.SKIPPED: "nodeSelector does not select this node",
}

log = structlog.get_logger()


class Manager(Protocol):
    """The methods of the manager that are used here."""

    async def apply(self, wanted: list[Wanted]) -> None:
        """Set the desired policies of the API server."""

    def get(self, identity: Identity) -> Entry | None:
        """Return the policy, or None."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A resource as the API server has it."""

    kind: PolicyKind
    generation: int  # changes with the spec, not with the status
    item: Resource

    def path(self) -> str:
        """Return where its status is written."""
        about = self.item["metadata"]
        path = _PATHS[self.kind]
        if self.kind is PolicyKind.NAMESPACED:
            group, _, plural = path.rpartition("/")
            path = f"{group}/namespaces/{about['namespace']}/{plural}"
        return f"{path}/{about['name']}/status"


class _Kind:
    """The resources of one kind, handed on to the event loop."""

    def __init__(self, kind: PolicyKind, changed: Callable[[Identity, _Stored | None], None]):
        self._kind = kind
        self._changed = changed
        self._known: dict[Identity, int] = {}

    def replace(self, items: list[Resource]) -> None:
        """Apply the list: resources that are not in it have been deleted."""
        listed = {_identity(item) for item in items}
        for identity in self._known.keys() - listed:
            self._forget(identity)
        for item in items:
            self._enter(item)

    def apply(self, kind: str, item: Resource) -> None:
        """Apply an event of the watch."""
        if kind == "DELETED":
            self._forget(_identity(item))
        else:
            self._enter(item)

    def _enter(self, item: Resource) -> None:
        identity, generation = _identity(item), item["metadata"].get("generation", 0)
        if self._known.get(identity) != generation:
            self._known[identity] = generation
            self._changed(identity, _Stored(self._kind, generation, item))

    def _forget(self, identity: Identity) -> None:
        if self._known.pop(identity, None) is not None:
            self._changed(identity, None)


class KubernetesPolicies:
    """Makes the manager load the API server's policies; they stay if that server is lost."""

    def __init__(
        self,
        client: ApiClient,
        node: KubernetesNode,
        node_name: str,
        manager: Manager,
        parse: Callable[[str, str], Policy],
    ) -> None:
        self._client = client
        self._node = node
        self._node_name = node_name
        self._manager = manager
        self._parse = parse
        self._stored: dict[Identity, _Stored] = {}
        self._changed: set[Identity] = set()
        self._written: dict[Identity, dict[str, Any]] = {}
        self._refused: dict[Identity, str] = {}  # why a status was not written, as logged
        self._work, self._report = asyncio.Event(), asyncio.Event()

    def states_changed(self) -> None:
        """Write the states of policies that have changed."""
        self._report.set()

    async def run(self) -> None:
        """Follow the resources until cancelled."""
        loop = asyncio.get_running_loop()

        def changed(identity: Identity, stored: _Stored | None) -> None:
            loop.call_soon_threadsafe(self._take, identity, stored)

        self._node.listen(lambda _: _in_loop(loop, self._take_labels))
        followers = [
            Follower(self._client, path, _Kind(kind, changed)) for kind, path in _PATHS.items()
        ]
        for one in followers:
            one.start("tracing policies")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._apply_forever())
                tasks.create_task(self._report_forever())
        finally:
            for one in followers:
                one.stop()

    def _take(self, identity: Identity, stored: _Stored | None) -> None:
        if stored is None:
            self._stored.pop(identity, None)
        else:
            self._stored[identity] = stored
        self._changed.add(identity)
        self._work.set()

    def _take_labels(self) -> None:
        """Decide again about policies with a selector of nodes."""
        self._changed |= {
            identity
            for identity, one in self._stored.items()
            if (one.item.get("spec") or {}).get("nodeSelector") is not None
        }
        self._work.set()

    async def _apply_forever(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            changed, self._changed = self._changed, set()
            try:
                await self._manager.apply([self._wanted(one) for one in sorted(changed)])
            except Exception:  # an error here must not end the base events
                log.exception("policies of the API server not applied")
            self._report.set()

    def _wanted(self, identity: Identity) -> Wanted:
        stored = self._stored.get(identity)
        if stored is None:
            return Wanted(identity)
        try:
            policy = self._parse(_document(stored), identity.name)
        except PolicyErrors as errors:
            return Wanted(identity, Revision(stored.generation, None, str(errors)))
        selector, policy = policy.node_selector, replace(policy, node_selector=None)
        here = selector is None or selects(selector, self._node.labels)
        return Wanted(
            identity, Revision(stored.generation, policy, enabled=here, off=State.SKIPPED)
        )

    async def _report_forever(self) -> None:
        while True:
            await self._report.wait()
            await asyncio.sleep(_GATHER_S)
            self._report.clear()
            for identity in self._written.keys() - self._stored.keys():
                del self._written[identity]
            for identity, stored in list(self._stored.items()):
                await self._write(identity, stored)

    async def _write(self, identity: Identity, stored: _Stored) -> None:
        entry = self._manager.get(identity)
        if entry is None:
            return
        status = {
            "state": entry.state.name.lower(),
            "mode": entry.mode.value,
            "message": entry.error[:_MESSAGE_MAX] or _MESSAGES.get(entry.state, "not loaded"),
            "observedGeneration": stored.generation,
        }
        if self._written.get(identity) == status or entry.state is State.LOADING:
            return
        change = {"status": {"nodes": {self._node_name: status}}}
        try:
            await asyncio.to_thread(self._client.patch, stored.path(), change)
        except KubernetesError as error:
            if str(error) != self._refused.get(identity):
                self._refused[identity] = str(error)
                log.warning("status of policy not written", policy=str(identity), error=str(error))
            asyncio.get_running_loop().call_later(_RETRY_S, self._report.set)
            return
        self._written[identity] = status
        self._refused.pop(identity, None)


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(call)


def _identity(item: Mapping[str, Any]) -> Identity:
    about = item["metadata"]
    return Identity(about["name"], about.get("namespace", ""), DOMAIN)


def _document(stored: _Stored) -> str:
    """Return the resource as the document that it was made from, as `kubectl` would print it."""
    about = stored.item["metadata"]
    kept = {key: about[key] for key in ("name", "namespace") if key in about}
    document = {
        "apiVersion": _API,
        "kind": stored.kind.value,
        "metadata": kept,
        "spec": stored.item.get("spec") or {},
    }
    import yaml  # 24 ms of a start; only where the API server has policies

    text: str = yaml.safe_dump(document, sort_keys=False)
    return text
