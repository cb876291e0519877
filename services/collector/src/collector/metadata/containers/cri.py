"""Containers and their pods from a CRI runtime: containerd or CRI-O.

Where the runtime has events (containerd 1.7, CRI-O 1.26), a container is known when it is created.
An older runtime is asked for new ids; it knows a container before it starts it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import grpc
import structlog

from collector.metadata.containers.engine import Engine, brief
from collector.metadata.containers.labels import labels_of_pod
from collector.processes.pods import Pod
from collector.processes.table import ContainerInfo
from cri import runtime_pb2 as cri
from cri.runtime_pb2_grpc import ImageServiceStub, RuntimeServiceStub

_LOOKUP_TIMEOUT_S = 5.0
_RELIST_S = 60.0  # where the runtime has no events
_OPTIONS = (
    # gRPC would send the socket's path as the host, which containerd refuses.
    ("grpc.default_authority", "localhost"),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_reconnect_backoff_ms", 5000),
)

log = structlog.get_logger()


class CriRuntime(Engine):
    """Containers of one CRI socket."""

    errors = (grpc.RpcError, ValueError)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._images: dict[str, str] = {}  # names by id
        self._runtime = ""
        self._has_events = True
        channel = grpc.insecure_channel(f"unix://{path}", options=_OPTIONS)
        self._service, self._image_service = RuntimeServiceStub(channel), ImageServiceStub(channel)

    def read(self, full_id: str = "") -> None:
        """See `Engine`."""
        if not self._serves_cri():
            return
        wanted = cri.ListContainersRequest()
        if full_id:
            wanted.filter.id = full_id
        found = self._service.ListContainers(wanted, timeout=_LOOKUP_TIMEOUT_S).containers
        pods = self._pods(full_id, found)
        for one in found:
            image = self._image(one.image, one.image_ref)
            self._add(one.id, one.metadata.name, image, pods.get(one.pod_sandbox_id))
        for sandbox, pod in pods.items():
            if self.known(sandbox) is None:
                self._add(sandbox, "", "", pod)

    def follow(self) -> None:
        """See `Engine`."""
        if self._disabled or not self._has_events:
            time.sleep(_RELIST_S)
            self.read()
            return
        stream = self._service.GetContainerEvents(cri.GetEventsRequest(), wait_for_ready=True)
        try:
            self._connected()
            self.read()  # what came between the first list and the stream
            for event in stream:
                self._learn(event)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            self._has_events = False
            log.info("container runtime has no events", socket=self.path, runtime=self._runtime)
        finally:
            stream.cancel()

    def _serves_cri(self) -> bool:
        """Return whether the socket serves CRI: containerd's may have that switched off."""
        if self._runtime:
            return True
        try:
            version = self._service.Version(cri.VersionRequest(), timeout=_LOOKUP_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            self._disabled, self._present = True, False
            return False
        self._disabled, self._present, self._runtime = False, True, version.runtime_name
        return True

    def _learn(self, event: cri.ContainerEventResponse) -> None:
        if event.container_event_type != cri.CONTAINER_CREATED_EVENT:
            return
        sandbox = event.pod_sandbox_status
        pod = _pod(sandbox.metadata, sandbox.labels)
        for status in event.containers_statuses:
            if status.id and self.known(status.id) is None:
                image = self._image(status.image, status.image_ref)
                self._add(status.id, status.metadata.name, image, pod)
        if sandbox.id and self.known(sandbox.id) is None:
            self._add(sandbox.id, "", "", pod)

    def _pods(self, full_id: str, found: Sequence[cri.Container]) -> dict[str, Pod]:
        """Return the pods of ``found`` by the id of their sandbox, which may be ``full_id``."""
        wanted = cri.ListPodSandboxRequest()
        if full_id:
            wanted.filter.id = sandbox = found[0].pod_sandbox_id if found else full_id
            known = self.known(sandbox)
            if known is not None and known.pod is not None:
                return {sandbox: known.pod}
        answer = self._service.ListPodSandbox(wanted, timeout=_LOOKUP_TIMEOUT_S)
        return {one.id: _pod(one.metadata, one.labels) for one in answer.items}

    def _add(self, full_id: str, name: str, image: str, pod: Pod | None) -> None:
        self.add(ContainerInfo(full_id, name, image, self._runtime, pod))

    def _image(self, spec: cri.ImageSpec, reference: str) -> str:
        """Return an image's name; its id where it has none."""
        if spec.user_specified_image:
            return spec.user_specified_image
        name = spec.image or reference
        if name and not name.startswith("sha256:"):
            return name
        if name not in self._images:
            try:
                self._read_images()
            except grpc.RpcError as error:
                log.debug("images not listed", socket=self.path, error=brief(error))
                return name
        return self._images.setdefault(name, name)

    def _read_images(self) -> None:
        answer = self._image_service.ListImages(cri.ListImagesRequest(), timeout=_LOOKUP_TIMEOUT_S)
        self._images = {
            image.id: (*image.repo_tags, *image.repo_digests, image.id)[0]
            for image in answer.images
        }


def _pod(metadata: cri.PodSandboxMetadata, labels: Mapping[str, str]) -> Pod:
    return Pod(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        labels=labels_of_pod(labels),
    )
