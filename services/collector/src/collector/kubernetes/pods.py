"""The pods of this node, from a watch of the API server, and recently deleted ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from cachetools import LRUCache

from collector.kubernetes.client import ApiClient, Resource
from collector.kubernetes.follow import Follower
from collector.kubernetes.workloads import PodRecord, pod_record
from collector.processes.pods import Pod
from collector.processes.table import ContainerInfo

_PATH = "/api/v1/pods"
_NEW_S = 1.0  # how long to wait for an unknown pod
_ASKED_MAX = 4096

log = structlog.get_logger()

Changed = Callable[[str, Sequence[str]], None]


@dataclass(slots=True)
class PodStatistics:
    """Totals since this collector started."""

    events: int = 0
    lists: int = 0
    malformed: int = 0


class KubernetesPods:
    """Pods by uid and containers by id; see `catalog.Pods`."""

    def __init__(
        self, client: ApiClient, node: str, *, deleted_max: int = 1024, annotations: bool = False
    ) -> None:
        """``node``: the name of this node at the API server."""
        self.statistics = PodStatistics()
        self._lock = threading.Lock()  # of the four below
        self._pods: dict[str, PodRecord] = {}
        self._deleted: LRUCache[str, PodRecord] = LRUCache(deleted_max)
        self._by_container: dict[str, str] = {}  # uid by full id
        self._aliases: dict[str, str] = {}  # uid by the uid at the runtime, of static pods
        self._asked: LRUCache[str, float] = LRUCache(_ASKED_MAX)
        self._annotations = annotations
        self._changed: Changed = _ignore
        self._follower = Follower(client, _PATH, self, fieldSelector=f"spec.nodeName={node}")

    def start(self, changed: Changed) -> None:
        """Follow the pods in a thread; ``changed`` gets the uid and container ids of each."""
        self._changed = changed
        self._follower.start("pods of this node")

    def __len__(self) -> int:
        return len(self._pods)

    @property
    def synced(self) -> bool:
        """Whether the pods are the API server's current ones."""
        return self._follower.synced

    def container(self, full_id: str) -> ContainerInfo | None:
        """Return a container by its id, from the status of a pod."""
        with self._lock:
            record = self._record(self._by_container.get(full_id, ""))
            if record is None or full_id not in record.names:
                return None
        name, runtime = record.names[full_id]
        known = record.containers.get(name)
        pod = record.pod._replace(container=known)
        return ContainerInfo(full_id, name, known.image if known else "", runtime, pod)

    def complete(self, pod: Pod, container: str) -> Pod | None:
        """Return a pod by its uid, with the named container; None while it is unknown."""
        with self._lock:
            record = self._record(pod.uid)
        if record is None:
            return None
        return record.pod._replace(container=record.containers.get(container))

    def settled(self, key: str) -> bool:
        """Return True if a pod or container is known, or need not be waited for."""
        with self._lock:
            if not self._follower.synced or self._record(key) is not None:
                return True
            now_s = time.monotonic()
            return now_s - self._asked.setdefault(key, now_s) > _NEW_S

    def replace(self, items: list[Resource]) -> None:
        """Apply a list: pods that are not in it have been deleted."""
        self.statistics.lists += 1
        records = [record for item in items if (record := self._read(item)) is not None]
        with self._lock:
            listed = {record.pod.uid for record in records}
            for uid in self._pods.keys() - listed:
                self._delete(uid)
        for record in records:
            self._enter(record)

    def apply(self, kind: str, item: Resource) -> None:
        """Apply an event of the watch."""
        self.statistics.events += 1
        record = self._read(item)
        if record is None:
            return
        self._enter(record)
        if kind == "DELETED":
            with self._lock:
                self._delete(record.pod.uid)

    def _read(self, item: Resource) -> PodRecord | None:
        try:
            return pod_record(item, annotations=self._annotations)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.statistics.malformed += 1
            log.warning("pod not understood", error=repr(error))
            return None

    def _enter(self, record: PodRecord) -> None:
        uid = record.pod.uid
        with self._lock:
            before = self._pods.get(uid)
            if before == record:
                return
            self._pods[uid] = record
            for gone in (before.names.keys() - record.names.keys()) if before else ():
                self._by_container.pop(gone, None)
            self._by_container |= dict.fromkeys(record.names, uid)
            if record.other_uid:
                self._aliases[record.other_uid] = uid
        self._changed(record.other_uid or uid, tuple(record.names))

    def _delete(self, uid: str) -> None:
        record = self._pods.pop(uid, None)
        if record is None:
            return
        while len(self._deleted) >= max(1, self._deleted.maxsize):
            self._forget(self._deleted.popitem()[1])
        if self._deleted.maxsize:
            self._deleted[uid] = record
        else:
            self._forget(record)

    def _forget(self, record: PodRecord) -> None:
        for full_id in record.names:
            self._by_container.pop(full_id, None)
        self._aliases.pop(record.other_uid, None)

    def _record(self, uid: str) -> PodRecord | None:
        uid = self._aliases.get(uid, uid)
        return self._pods.get(uid) or self._deleted.get(uid)


def _ignore(_uid: str, _ids: Sequence[str]) -> None:
    """Ignore a change."""
