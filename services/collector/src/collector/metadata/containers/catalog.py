"""The containers of a host: those of several engines, completed from the API server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Protocol

from cachetools import LRUCache

from collector.metadata.containers.engine import Engine
from collector.metadata.containers.nri import Nri
from collector.processes.pods import Pod
from collector.processes.table import ContainerInfo

_PODS_MAX = 4096
_FIRST_LIST_S = 0.25  # how long processes that run at start wait for the first lists of containers

Listener = Callable[[str], None]


class Pods(Protocol):
    """The pods of this node, from an API server."""

    def start(self, changed: Callable[[str, Sequence[str]], None]) -> None:
        """Follow the pods; ``changed`` gets the uid of each, and its container ids, in a thread."""

    def container(self, full_id: str) -> ContainerInfo | None:
        """Return a container by its id, from the status of a pod."""

    def complete(self, pod: Pod, container: str) -> Pod | None:
        """Return a pod by its uid, with the named container; None while it is unknown."""

    def settled(self, key: str) -> bool:
        """Return True if a pod, by its uid, or a container is known, or need not be waited for."""


class NoPods:
    """A host without Kubernetes."""

    def start(self, changed: Callable[[str, Sequence[str]], None]) -> None:
        """Follow nothing."""

    def container(self, _full_id: str) -> ContainerInfo | None:
        """Return None."""
        return None

    def complete(self, _pod: Pod, _container: str) -> Pod | None:
        """Return None."""
        return None

    def settled(self, _key: str) -> bool:
        """Return True."""
        return True


class Catalog:
    """Containers by id, of all engines; see `Containers`."""

    def __init__(self, engines: Sequence[Engine] = (), pods: Pods | None = None) -> None:
        self._engines = tuple(engines)
        self._pods: Pods = NoPods() if pods is None else pods
        self._listeners: list[Listener] = []
        self._start_listeners: list[Listener] = []
        self._lock = Lock()  # of the two below
        self._by_pod: LRUCache[str, frozenset[str]] = LRUCache(_PODS_MAX)  # container ids by uid
        self._late: set[str] = set()
        self._wait_until_s = 0.0

    def start(self) -> None:
        """List the containers of each engine and follow changes, in threads."""
        self._wait_until_s = time.monotonic() + _FIRST_LIST_S
        self._pods.start(self._pod_changed)
        for engine in self._engines:
            if isinstance(engine, Nri):
                engine.starting = self._starting
            engine.start(partial(self._container_changed, engine))

    def wait_listed(self) -> None:
        """Wait for the first lists, until a moment after `start`; later containers are late."""
        for engine in self._engines:
            engine.wait_listed(self._wait_until_s)

    def listen(self, listener: Listener) -> None:
        """Call ``listener``, in a thread, with the id of each container that is new or changed."""
        self._listeners.append(listener)

    def listen_start(self, listener: Listener) -> None:
        """Call ``listener``, in a thread, with the id of a container that is about to start.

        It starts when the listener returns, where a runtime hook is installed.
        """
        self._start_listeners.append(listener)

    def _starting(self, full_id: str) -> None:
        for listener in self._start_listeners:
            listener(full_id)

    def _container_changed(self, engine: Engine, full_id: str) -> None:
        found = engine.get(full_id)
        if found is not None and found.pod is not None:
            uid = found.pod.uid
            with self._lock:
                self._by_pod[uid] = self._by_pod.get(uid, frozenset()) | {full_id}
        for listener in self._listeners:
            listener(full_id)

    def _pod_changed(self, uid: str, ids: Sequence[str]) -> None:
        with self._lock:
            affected = self._by_pod.get(uid, frozenset()).union(ids)
            self._late |= affected
        for full_id in affected:
            for listener in self._listeners:
                listener(full_id)

    def get(self, full_id: str) -> ContainerInfo | None:
        """Return the container with this full id, or None while it is unknown."""
        found = self._of_engine(full_id)
        if found is None:
            return self._pods.container(full_id)
        if found.pod is None:
            return found
        pod = self._pods.complete(found.pod, found.name)
        return found if pod is None else found._replace(pod=pod)

    def settled(self, full_id: str) -> bool:
        """Return False while the id is being looked up; start a lookup if one is needed."""
        found = self._of_engine(full_id)
        if found is not None:
            return found.pod is None or self._pods.settled(found.pod.uid)
        if self._pods.container(full_id) is not None:
            return True
        answers = [engine.settled(full_id) for engine in self._engines]  # asks all of them
        return all(answers) and self._pods.settled(full_id)

    def _of_engine(self, full_id: str) -> ContainerInfo | None:
        for engine in self._engines:
            found = engine.get(full_id)
            if found is not None:
                return found
        return None

    def take_late(self) -> list[ContainerInfo]:
        """Return the containers that became known, or better known, after events were reported."""
        with self._lock:
            ids, self._late = self._late, set()
        ids |= {one.id for engine in self._engines for one in engine.take_late()}
        return [found for one in ids if (found := self.get(one)) is not None]
