"""The labels of this node, from a watch of the API server."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from collector.kubernetes.client import ApiClient, Resource
from collector.kubernetes.follow import Follower

_PATH = "/api/v1/nodes"
Listener = Callable[[Mapping[str, str]], None]


class KubernetesNode:
    """This node's labels; empty until the API server has answered."""

    def __init__(self, client: ApiClient, node: str) -> None:
        self.labels: Mapping[str, str] = {}
        self._listeners: list[Listener] = []
        self._follower = Follower(client, _PATH, self, fieldSelector=f"metadata.name={node}")

    def start(self) -> None:
        """Follow the node in a thread."""
        self._follower.start("labels of this node")

    def listen(self, listener: Listener) -> None:
        """Call ``listener``, in a thread, whenever the labels have changed."""
        self._listeners.append(listener)

    def replace(self, items: list[Resource]) -> None:
        """Apply the list: this node, or nothing."""
        self._set(items[0] if items else {})

    def apply(self, kind: str, item: Resource) -> None:
        """Apply an event of the watch."""
        self._set(item if kind != "DELETED" else {})

    def _set(self, item: Resource) -> None:
        labels = dict((item.get("metadata") or {}).get("labels") or {})
        if labels == self.labels:
            return
        self.labels = labels
        for listener in self._listeners:
            listener(labels)
