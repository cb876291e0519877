"""Elastic Common Schema 8: https://www.elastic.co/docs/reference/ecs/ecs-field-reference

`KINDS` maps each kind of event to its category there. Facts without an ECS field are in ``tetra``,
under Tetragon's names.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from exporter.formats.parts import (
    MAPPED,
    Parts,
    arguments,
    command_line,
    container,
    dumps,
    name_of,
    user_name,
)
from exporter.selection import Selected

VERSION = "8.17.0"
_MAPPED = MAPPED | {"cwd"}

Fields = dict[str, Any]


class Kind(NamedTuple):
    """The categorization of one kind of event."""

    category: list[str]
    type: list[str]
    action: str


KINDS = {
    "process_exec": Kind(["process"], ["start"], "exec"),
    "process_exit": Kind(["process"], ["end"], "exit"),
    "process_kprobe": Kind(["process"], ["info"], "kprobe"),
    "process_tracepoint": Kind(["process"], ["info"], "tracepoint"),
    "process_lsm": Kind(["process"], ["info"], "lsm"),
    "process_loader": Kind(["library"], ["start"], "load"),
    "process_uprobe": Kind(["process"], ["info"], "uprobe"),
    "process_usdt": Kind(["process"], ["info"], "usdt"),
}
_OTHER = Kind(["host"], ["info"], "report")


def encode(selected: Selected) -> str:
    """Return the event as one line of ECS."""
    parts = Parts(selected)
    kind = KINDS.get(parts.kind, _OTHER)
    found: Fields = {
        "@timestamp": _time(parts.time_ns),
        "ecs": {"version": VERSION},
        "event": {
            "id": parts.id,
            "kind": "event",
            "category": kind.category,
            "type": kind.type,
            "action": kind.action,
            "module": "tetra",
            "dataset": f"tetra.{parts.kind}",
        },
        "host": {"name": parts.node, "hostname": parts.node, "os": {"type": "linux"}},
    }
    if parts.process is not None:
        found["process"] = _process(parts)
        found["user"] = _user(parts.process)
        found |= _where(parts)
    policy = getattr(parts.inner, "policy_name", "")
    if policy:
        found["rule"] = {"name": policy}
    if parts.kind == "process_loader":
        found["file"] = {"path": parts.inner.path, "name": name_of(parts.inner.path)}
    rest = parts.rest(_MAPPED)
    if rest:
        found["tetra"] = rest
    return dumps(found)


def _process(parts: Parts) -> Fields:
    process = parts.process
    found = _one(process)
    if parts.parent is not None:
        found["parent"] = _one(parts.parent)
    if parts.kind == "process_exit":
        found["exit_code"] = parts.inner.status
        found["end"] = _time(parts.time_ns)
    return found


def _one(process: Any) -> Fields:
    found: Fields = {
        "pid": process.pid.value,
        "entity_id": process.exec_id,
        "name": name_of(process.binary),
        "executable": process.binary,
        "args": arguments(process),
        "command_line": command_line(process),
        "start": _time(process.start_time.ToNanoseconds()),
        "working_directory": process.cwd,
        "user": _user(process),
    }
    if process.HasField("tid"):
        found["thread"] = {"id": process.tid.value}
    return found


def _user(process: Any) -> Fields:
    name = user_name(process)
    return {"id": str(process.uid.value)} | ({"name": name} if name else {})


def _where(parts: Parts) -> Fields:
    process = parts.process
    found: Fields = {}
    known = container(process)
    if known.get("id"):
        found["container"] = {"id": known["id"]}
        if "name" in known:
            found["container"]["name"] = known["name"]
        if "image" in known:
            found["container"]["image"] = {"name": known["image"]}
    if process.HasField("pod"):
        pod = process.pod
        found["orchestrator"] = {
            "type": "kubernetes",
            "namespace": pod.namespace,
            "resource": {"type": "pod", "name": pod.name, "id": pod.uid},
        }
        if parts.cluster:
            found["orchestrator"]["cluster"] = {"name": parts.cluster}
    return found


def _time(time_ns: int) -> str:
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"
