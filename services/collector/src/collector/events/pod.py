"""Field ``pod`` of tetragon.Process, and our field for systemd's units."""

from __future__ import annotations

import posixpath
import shlex

from collector.events.fields import map_entries, tags, varint_tag
from collector.processes.pods import HostUnit, Pod
from collector.processes.table import ContainerInfo, Image
from tetra.v1 import extensions_pb2
from tetragon import tetragon_pb2
from wire.write import message, text, timestamp, uint32_value

_P = tags(tetragon_pb2.Process, "pod")["pod"]
_POD = tags(
    tetragon_pb2.Pod,
    "namespace", "name", "uid", "container", "pod_labels", "workload", "workload_kind",
    "pod_annotations",
)  # fmt: skip
_TEXTS = ("namespace", "name", "uid", "workload", "workload_kind")
_CONTAINER = tags(
    tetragon_pb2.Container, "id", "name", "image", "start_time", "pid", "security_context"
)
_EXEC_PROBE = varint_tag(tetragon_pb2.Container, "maybe_exec_probe") + b"\x01"
_IMAGE = tags(tetragon_pb2.Image, "id", "name")
_PRIVILEGED = varint_tag(tetragon_pb2.SecurityContext, "privileged") + b"\x01"
_UNIT = tags(extensions_pb2.HostUnit, *HostUnit._fields)


def pod_field(image: Image) -> bytes:
    """Return the field ``pod``, without container.pid, which is the process's; maybe nothing."""
    container = image.container
    if container is None or container.pod is None:
        return b""
    pod = container.pod
    body = [text(_POD[name], getattr(pod, name)) for name in _TEXTS]
    if container.name:
        body.append(message(_POD["container"], _container(container, pod, image)))
    body += map_entries(_POD["pod_labels"], pod.labels)
    body += map_entries(_POD["pod_annotations"], pod.annotations)
    return message(_P, b"".join(body))


def container_pid(image: Image, nspid: int) -> bytes:
    """Return a second field ``pod``, which parsers merge into the first: pod.container.pid."""
    container = image.container
    if not nspid or container is None or container.pod is None or not container.name:
        return b""
    pid = uint32_value(_CONTAINER["pid"], nspid)
    return message(_P, message(_POD["container"], pid))


def host_unit(unit: HostUnit) -> bytes:
    """Return the body of a tetra.v1.HostUnit."""
    return b"".join(text(tag, getattr(unit, name)) for name, tag in _UNIT.items())


def _container(container: ContainerInfo, pod: Pod, image: Image) -> bytes:
    known = pod.container
    image_body = text(_IMAGE["id"], known.image_id if known else "")
    image_body += text(_IMAGE["name"], (known and known.image) or container.image)
    body = text(_CONTAINER["id"], f"{container.runtime}://{container.id}")
    body += text(_CONTAINER["name"], container.name)
    body += message(_CONTAINER["image"], image_body)
    if known is None:
        return body
    if known.started_at_ns:
        body += message(_CONTAINER["start_time"], timestamp(known.started_at_ns))
    if any(is_probe(probe, image.binary, image.arguments) for probe in known.probes):
        body += _EXEC_PROBE
    # Present for every container, as in Tetragon; false is the default.
    return body + message(_CONTAINER["security_context"], _PRIVILEGED if known.privileged else b"")


def is_probe(probe: tuple[str, ...], binary: str, arguments: str) -> bool:
    """Return whether a command line is that of an exec probe."""
    if not probe:
        return False
    command, *rest = probe
    path = posixpath.isabs(command)
    if command != binary and (path or posixpath.basename(command) != posixpath.basename(binary)):
        return False  # most processes of a pod: their arguments, however long, are not split
    try:
        words = shlex.split(arguments)
    except ValueError:
        return False
    if command == binary and words[:1] == [binary]:
        words = words[1:]
    return rest == words
