"""The columns of an event: those of Parquet files, and those that are counted in the stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from eventfilters import Event
from eventfilters.accesses import Peer, files, peers
from eventstream.batch import Batch
from tetragon.tetragon_pb2 import Process

_SHORT_ID = 12  # hexadecimal digits that container engines show


class Row(NamedTuple):
    """One event; None where the event has no process, parent or pod to take the value from."""

    stream_sequence: int  # the message of the stream, and the event's place in it
    batch_index: int
    node: str
    boot_id: str
    sequence: int  # the event's number: without a gap for each node and boot
    time: int  # nanoseconds since 1970; when NATS stored the event, where it has no time
    kind: str  # process_exec, process_exit, process_kprobe, ...
    binary: str | None
    arguments: str | None
    uid: int | None
    user: str | None  # the user's name, else the number
    pid: int | None
    exec_id: str | None
    parent_exec_id: str | None
    parent_binary: str | None
    parent_pid: int | None
    container: str | None  # namespace/pod, else the container's name, else its short id
    container_id: str | None
    container_name: str | None
    image: str | None
    pod: str | None
    namespace: str | None
    unit: str | None  # of systemd
    policy: str
    function: str  # that a policy reported: function, tracepoint or symbol
    file: str  # that an event of a policy names first
    peer: str  # address of the other side
    peer_port: int
    status: int | None  # of an exit
    signal: str | None
    event: bytes  # tetragon.GetEventsResponse


class _Container(NamedTuple):
    place: str
    name: str
    image: str
    pod: str | None
    namespace: str


_NO_PROCESS = (None,) * 9
_NO_CONTAINER = _Container("", "", "", None, "")
_NOWHERE = ("", "", "", "", 0)
_FUNCTIONS: dict[str, Callable[[Any], str]] = {
    "process_kprobe": lambda body: body.function_name,
    "process_lsm": lambda body: body.function_name,
    "process_tracepoint": lambda body: f"{body.subsys}/{body.event}",
    "process_uprobe": lambda body: body.symbol or f"{body.offset:#x}",
    "process_usdt": lambda body: f"{body.provider}/{body.name}",
    "process_loader": lambda body: "",
}


class Place(NamedTuple):
    """The columns of an event that are not in the event."""

    stream_sequence: int
    batch_index: int
    node: str
    boot_id: str
    sequence: int
    time: int


def place_of(batch: Batch, index: int, event: Event) -> Place:
    """Return the place of event ``index`` of ``batch``."""
    time = event.message.time
    return Place(
        batch.stream_sequence,
        index,
        batch.node_name,
        batch.boot_id,
        batch.first_sequence + index,
        time.seconds * 1_000_000_000 + time.nanos or batch.stored_ns,
    )


def row_of(place: Place, event: Event) -> Row:
    """Return the columns of an event."""
    kind = event.kind or ""
    inner: Any = event.inner
    process = event.process
    values = (
        *place,
        kind,
        *_process(process, event.parent),
        *_container(process),
        *(_reported(kind, inner) if kind in _FUNCTIONS else _NOWHERE),
        *((inner.status, inner.signal) if kind == "process_exit" else (None, None)),
        event.data,
    )
    return Row._make(values)


def _process(process: Process | None, parent: Process | None) -> tuple[Any, ...]:
    if process is None:
        return _NO_PROCESS
    uid = process.uid.value if process.HasField("uid") else None
    return (
        process.binary,
        process.arguments,
        uid,
        process.user_name or process.user.name or ("" if uid is None else str(uid)),
        process.pid.value,
        process.exec_id,
        process.parent_exec_id,
        None if parent is None else parent.binary,
        None if parent is None else parent.pid.value,
    )


def _container(process: Process | None) -> tuple[Any, ...]:
    if process is None:
        return (None,) * 7
    docker = process.docker
    unit = process.host_unit.unit if process.HasField("host_unit") else ""
    place = _named(process, docker)
    return (place.place, docker, place.name, place.image, place.pod, place.namespace, unit)


def _named(process: Process, docker: str) -> _Container:
    if process.HasField("pod"):
        pod = process.pod
        name = pod.container.name or process.container_info.name
        image = pod.container.image.name or process.container_info.image
        return _Container(f"{pod.namespace}/{pod.name}", name, image, pod.name, pod.namespace)
    if process.HasField("container_info"):
        info = process.container_info
        return _Container(info.name or docker[:_SHORT_ID], info.name, info.image, None, "")
    return _Container(docker[:_SHORT_ID], "", "", None, "") if docker else _NO_CONTAINER


def _reported(kind: str, body: Any) -> tuple[str, str, str, str, int]:
    if kind == "process_loader":
        return "", "", body.path, "", 0
    found = peers(body)
    peer = found[-1] if found else Peer("", 0)
    return body.policy_name, _FUNCTIONS[kind](body), files(body).path, peer.address, peer.port
