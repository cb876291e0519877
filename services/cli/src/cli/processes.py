"""The texts that all outputs show of a process. Nothing is escaped here."""

from __future__ import annotations

from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process, ProcessExit

_SHORT_ID = 12  # hexadecimal digits that container engines show


def user_of(process: Process) -> str:
    """Return the user's name, else the number, else ``?``."""
    name = process.user_name or process.user.name
    if name:
        return name
    return str(process.uid.value) if process.HasField("uid") else "?"


def place_of(process: Process) -> str:
    """Return namespace/pod, else the container's name, else its short id, else nothing."""
    if process.HasField("pod"):
        return f"{process.pod.namespace}/{process.pod.name}"
    return process.container_info.name or process.docker[:_SHORT_ID]


def count_text(event: GetEventsResponse) -> str:
    """Return ``x N`` for an event that stands for N equal ones, nothing for a single one."""
    if not event.HasField("aggregation_info"):
        return ""
    count = event.aggregation_info.count
    return f"x {count}" if count > 1 else ""


def command_of(process: Process) -> str:
    """Return binary and arguments."""
    # Quoting puts a space before a first argument that has one in it.
    arguments = process.arguments.removeprefix(" ")
    binary = process.binary or "?"
    return f"{binary} {arguments}" if arguments else binary


def is_kernel_thread(process: Process, parent_pid: int) -> bool:
    """Return whether this is a kernel thread: kthreadd, process 2, or a child of it."""
    return 2 in (process.pid.value, parent_pid) and process.binary.startswith("[")


def end_of(ended: ProcessExit) -> str:
    """Return the signal's name or the exit status; nothing for a plain 0."""
    status = ended.status
    return ended.signal or (str(status) if status else "")


def process_of(event: GetEventsResponse, member: str = "process") -> Process | None:
    """Return the process (or ``parent``) in any kind of event, if the event has one."""
    kind = event.WhichOneof("event")
    body = getattr(event, kind) if kind else None
    if body is None or member not in body.DESCRIPTOR.fields_by_name or not body.HasField(member):
        return None
    process: Process = getattr(body, member)
    return process


def parent_of(event: GetEventsResponse) -> Process | None:
    """Return the parent in any kind of event, if the event has one."""
    return process_of(event, "parent")
