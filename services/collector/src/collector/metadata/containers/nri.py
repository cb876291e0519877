"""Containers before they start, from a runtime's NRI socket (containerd 1.7, CRI-O 1.26).

The runtime asks this plugin before it starts a container, and waits for the answer: the container
is then known, and policies select it from its first instruction on. The plugin changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from google.protobuf.message import DecodeError

from collector.metadata.containers.engine import Engine
from collector.metadata.containers.labels import labels_of_pod
from collector.metadata.containers.ttrpc import Trunk
from collector.processes.pods import Pod
from collector.processes.table import ContainerInfo
from nri.nri_pb2 import (
    START_CONTAINER,
    ConfigureRequest,
    ConfigureResponse,
    RegisterPluginRequest,
    StateChangeEvent,
)

_PLUGIN, _RUNTIME = 1, 2  # numbers of the connections in the trunk
_CONNECT_S = 5.0
_NAME, _INDEX = "tetra", "90"
_SERVICE = "nri.pkg.api.v1alpha1.Runtime"
_IMAGE = "io.kubernetes.cri.image-name"  # annotation of containerd's CRI plugin

log = structlog.get_logger()


class Nri(Engine):
    """Containers that a runtime is about to start."""

    errors = (OSError, DecodeError)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._runtime = ""
        self.starting: Callable[[str], None] = _at_once

    def settled(self, full_id: str) -> bool:
        """Return True: there is nothing to ask."""
        return True

    def start(self, changed: Callable[[str], None] | None = None) -> None:
        """Register, and serve in a thread."""
        if changed is not None:
            self._changed = changed
        threading.Thread(target=self._follow, name="NRI", daemon=True).start()

    def read(self, full_id: str = "") -> None:
        """Read nothing: the runtime calls."""

    def follow(self) -> None:
        """See `Engine`."""
        trunk = Trunk(self.path, ours=_RUNTIME, theirs=_PLUGIN, timeout_s=_CONNECT_S)
        try:
            about = RegisterPluginRequest(plugin_name=_NAME, plugin_idx=_INDEX)
            trunk.call(_SERVICE, "RegisterPlugin", about.SerializeToString(), self._serve)
            log.info("runtime hook registered", socket=self.path)
            trunk.serve(self._serve)
        finally:
            trunk.close()

    def _serve(self, method: str, payload: bytes) -> bytes | None:
        if method == "Configure":
            self._runtime = ConfigureRequest.FromString(payload).runtime_name
            return ConfigureResponse(events=1 << (START_CONTAINER - 1)).SerializeToString()
        if method == "StateChange":
            self._learn(StateChangeEvent.FromString(payload))
        return b"" if method in ("StateChange", "Synchronize", "Shutdown") else None

    def _learn(self, event: StateChangeEvent) -> None:
        if event.event != START_CONTAINER:
            return
        container, sandbox = event.container, event.pod
        pod = Pod(sandbox.namespace, sandbox.name, sandbox.uid, labels_of_pod(sandbox.labels))
        image = container.annotations.get(_IMAGE, "")
        self.add(ContainerInfo(container.id, container.name, image, self._runtime, pod))
        self.starting(container.id)


def _at_once(_full_id: str) -> None:
    """Let a container start."""
