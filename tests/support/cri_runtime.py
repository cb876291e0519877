"""A CRI runtime on a unix socket, with one container in one pod."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import grpc

from collector.processes.pods import Pod
from collector.processes.table import ContainerInfo
from cri import runtime_pb2 as cri
from cri.runtime_pb2_grpc import (
    ImageServiceServicer,
    RuntimeServiceServicer,
    add_ImageServiceServicer_to_server,
    add_RuntimeServiceServicer_to_server,
)

ID, SANDBOX, OTHER = "a" * 64, "b" * 64, "c" * 64
IMAGE_ID = "sha256:" + "5" * 64
POD = Pod("shop", "web-1", "u1", (("app", "web"),))
WEB = ContainerInfo(ID, "nginx", "nginx:1", "containerd", POD)
PAUSE = ContainerInfo(SANDBOX, "", "", "containerd", POD)
LABELS = {"app": "web", "io.kubernetes.pod.name": "web-1", "io.kubernetes.pod.uid": "u1"}
METADATA = cri.PodSandboxMetadata(name="web-1", namespace="shop", uid="u1")


class Runtime(RuntimeServiceServicer, ImageServiceServicer):
    """Answers as containerd does; a test changes its attributes at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.containers: list[cri.Container] = []
        self.sandboxes: list[cri.PodSandbox] = []
        self.images = {IMAGE_ID: "nginx:1"}
        self.events: SimpleQueue[cri.ContainerEventResponse] = SimpleQueue()
        self.has_events, self.has_cri = True, True
        self.followers = self.image_lists = 0
        self.lookups: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.stopped = threading.Event()
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Listen."""
        self._server = grpc.server(ThreadPoolExecutor(8))
        add_RuntimeServiceServicer_to_server(self, self._server)
        add_ImageServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix://{self.path}")
        self._server.start()

    def stop(self) -> None:
        """End the streams of events, and the server."""
        assert self._server is not None
        self.stopped.set()
        self._server.stop(None).wait()

    def add(self, image: str = "nginx:1") -> None:
        """Make a pod with one container."""
        self.sandboxes.append(cri.PodSandbox(id=SANDBOX, metadata=METADATA, labels=LABELS))
        self.containers.append(
            cri.Container(
                id=ID, pod_sandbox_id=SANDBOX, metadata=cri.ContainerMetadata(name="nginx"),
                image=cri.ImageSpec(image=image), image_ref=IMAGE_ID,
            )
        )  # fmt: skip

    def emit(
        self,
        kind: cri.ContainerEventType = cri.CONTAINER_CREATED_EVENT,
        image: str = "nginx:1",
    ) -> None:
        """Send an event about the container."""
        status = cri.ContainerStatus(
            id=ID, metadata=cri.ContainerMetadata(name="nginx"), image=cri.ImageSpec(image=image)
        )
        sandbox = cri.PodSandboxStatus(id=SANDBOX, metadata=METADATA, labels=LABELS)
        self.events.put(
            cri.ContainerEventResponse(
                container_id=ID, container_event_type=kind, pod_sandbox_status=sandbox,
                containers_statuses=[status],
            )
        )  # fmt: skip

    def Version(self, request: Any, context: Any) -> Any:
        if not self.has_cri:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown service")
        return cri.VersionResponse(runtime_name="containerd", runtime_version="1.7.24")

    def ListContainers(self, request: Any, context: Any) -> Any:
        wanted = request.filter.id
        if wanted:
            self.lookups.append(wanted)
        self.may_answer.wait(60)
        found = [c for c in self.containers if wanted in ("", c.id)]
        return cri.ListContainersResponse(containers=found)

    def ListPodSandbox(self, request: Any, context: Any) -> Any:
        wanted = request.filter.id
        return cri.ListPodSandboxResponse(items=[s for s in self.sandboxes if wanted in ("", s.id)])

    def ListImages(self, request: Any, context: Any) -> Any:
        self.image_lists += 1
        images = [cri.Image(id=i, repo_tags=[name]) for i, name in self.images.items()]
        return cri.ListImagesResponse(images=images)

    def GetContainerEvents(self, request: Any, context: Any) -> Iterator[Any]:
        if not self.has_events:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method")
        self.followers += 1
        # A reader that is cut off follows again at once: the flag ends that one as well.
        while not self.stopped.is_set():
            with suppress(Empty):
                yield self.events.get(timeout=0.05)
