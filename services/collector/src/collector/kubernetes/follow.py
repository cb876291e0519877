"""List, then watch: a copy of some of the API server's resources, kept until it is stopped."""

from __future__ import annotations

import threading
from random import Random
from typing import Protocol

import structlog

from collector.errors import KubernetesError
from collector.kubernetes.client import GONE, ApiClient, Resource

RETRY_S = (0.2, 10.0)  # first and longest wait
_PAGE = "500"
_CONTINUES = 8  # watches without an event in between that end in an error, before a new list

log = structlog.get_logger()


class Store(Protocol):
    """The copy of the resources."""

    def replace(self, items: list[Resource]) -> None:
        """Replace the copy by a list: resources that are not in it have been deleted."""

    def apply(self, kind: str, item: Resource) -> None:
        """Apply an event: "ADDED", "MODIFIED" or "DELETED"."""


class Follower:
    """Keeps a `Store` like a list of the API server, in a thread that ends with the process."""

    def __init__(self, client: ApiClient, path: str, store: Store, **query: str) -> None:
        self._client = client
        self._path = path
        self._store = store
        self._query = query
        self.synced = False  # whether the store has the server's current list
        self._version = ""  # resource version of the store's content
        self._reported = ""
        self._stopped = threading.Event()
        self._random = Random()

    def start(self, name: str) -> None:
        """Start the thread."""
        threading.Thread(target=self.run, name=name, daemon=True).start()

    def stop(self) -> None:
        """End the thread when its current request has ended."""
        self._stopped.set()

    def run(self) -> None:
        """Follow until `stop`."""
        wait_s, failures = RETRY_S[0], 0
        while not self._stopped.is_set():
            before = self._version
            try:
                if not self._version:
                    self._list()
                self._watch()
                wait_s, failures = RETRY_S[0], 0
                if self._version == before:  # no event: a server that ends every watch at once
                    self._stopped.wait(wait_s)
            except KubernetesError as error:
                self._now(synced=False, error=str(error))
                failures = 1 if self._version != before else failures + 1
                if error.status == GONE or failures >= _CONTINUES:
                    self._version, failures = "", 0
                self._stopped.wait(wait_s * self._random.uniform(0.5, 1.0))
                wait_s = min(wait_s * 2, RETRY_S[1])

    def _list(self) -> None:
        """Fill the store."""
        items: list[Resource] = []
        token = ""
        while True:
            query = self._query | {"limit": _PAGE} | ({"continue": token} if token else {})
            found = self._client.get(self._path, **query)
            items += found.get("items") or []
            about = found["metadata"]
            token = about.get("continue", "")
            if not token:
                self._store.replace(items)
                self._version = about["resourceVersion"]
                return

    def _watch(self) -> None:
        """Apply events until the watch ends."""
        events = self._client.watch(self._path, self._version, **self._query)
        self._now(synced=True)
        for event in events:
            item = event["object"]
            if event["type"] != "BOOKMARK":
                self._store.apply(event["type"], item)
            self._version = item["metadata"]["resourceVersion"]

    def _now(self, *, synced: bool, error: str = "") -> None:
        self.synced = synced
        if error and error != self._reported:
            log.warning("API server not followed", path=self._path, error=error)
        elif synced and self._reported:
            log.info("API server followed again", path=self._path)
        self._reported = error
