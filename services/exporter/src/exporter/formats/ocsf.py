"""OCSF 1.3: https://schema.ocsf.io/1.3.0/

Each kind of event becomes one class; `CLASSES` is the table. Facts without an attribute of the
class are in ``unmapped``, under Tetragon's names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from exporter.formats.parts import (
    MAPPED,
    Parts,
    command_line,
    container,
    dumps,
    milliseconds,
    name_of,
    user_name,
)
from exporter.selection import Selected

VERSION = "1.3.0"
_CATEGORY = 1  # System Activity
_INFORMATIONAL = 1
_UNKNOWN, _OTHER = 0, 99
_REGULAR_FILE = 1
_SYSTEM_CALL = 2  # kernel.type_id
_MAPPED = 4  # module.load_type_id
_PRODUCT = {"name": "Tetragon-mini", "vendor_name": "Tetragon-mini"}

Attributes = dict[str, Any]


class Class(NamedTuple):
    """The OCSF class of one kind of event."""

    uid: int
    name: str
    activity_id: int
    activity: str
    attributes: Callable[[Parts], Attributes]


def _launch(parts: Parts) -> Attributes:
    actor = parts.parent if parts.parent is not None else parts.process
    return {"actor": {"process": _process(actor)}, "process": _process(parts.process, parts.parent)}


def _terminate(parts: Parts) -> Attributes:
    process = _process(parts.process, parts.parent)
    process["terminated_time"] = milliseconds(parts.time_ns)
    return {
        "actor": {"process": process},
        "process": process,
        "exit_code": parts.inner.status,
    }


def _kernel(name: str) -> Callable[[Parts], Attributes]:
    def attributes(parts: Parts) -> Attributes:
        function = getattr(parts.inner, name) or parts.kind
        found: Attributes = {"name": function, "type_id": _OTHER, "type": "Function"}
        bare = function.removeprefix("__x64_").removeprefix("__arm64_")
        if bare.startswith("sys_"):
            found |= {"type_id": _SYSTEM_CALL, "type": "System Call", "system_call": bare[4:]}
        elif parts.kind == "process_tracepoint":
            found["type"] = "Tracepoint"
            found["name"] = f"{parts.inner.subsys}:{parts.inner.event}"
        return {"actor": _actor(parts), "kernel": found}

    return attributes


def _module(parts: Parts) -> Attributes:
    path = parts.inner.path
    module: Attributes = {"load_type_id": _MAPPED, "load_type": "Mapped", "file": _file(path)}
    if parts.kind == "process_usdt":
        module["function_name"] = f"{parts.inner.provider}:{parts.inner.name}"
    elif parts.kind == "process_uprobe":
        module["function_name"] = parts.inner.symbol
    return {"actor": _actor(parts), "module": module}


def _nothing(parts: Parts) -> Attributes:
    return {}


CLASSES = {
    "process_exec": Class(1007, "Process Activity", 1, "Launch", _launch),
    "process_exit": Class(1007, "Process Activity", 2, "Terminate", _terminate),
    "process_kprobe": Class(1003, "Kernel Activity", 4, "Invoke", _kernel("function_name")),
    "process_tracepoint": Class(1003, "Kernel Activity", 4, "Invoke", _kernel("event")),
    "process_lsm": Class(1003, "Kernel Activity", 4, "Invoke", _kernel("function_name")),
    "process_loader": Class(1005, "Module Activity", 1, "Load", _module),
    # A module has no activity for a call: 3 is of Kernel Activity only.
    "process_uprobe": Class(1005, "Module Activity", _OTHER, "Invoke", _module),
    "process_usdt": Class(1005, "Module Activity", _OTHER, "Invoke", _module),
}
_BASE = Class(0, "Base Event", _OTHER, "Other", _nothing)


def encode(selected: Selected) -> str:
    """Return the event as one line of OCSF."""
    parts = Parts(selected)
    kind = CLASSES.get(parts.kind, _BASE)
    profiles = ["host"]
    family = (parts.process, parts.parent)
    if any(container(process) for process in family if process is not None):
        profiles.append("container")
    found: Attributes = {
        "activity_id": kind.activity_id,
        "activity_name": kind.activity,
        "category_uid": _CATEGORY if kind.uid else 0,
        "category_name": "System Activity" if kind.uid else "Uncategorized",
        "class_uid": kind.uid,
        "class_name": kind.name,
        "type_uid": kind.uid * 100 + kind.activity_id,
        "type_name": f"{kind.name}: {kind.activity}",
        "severity_id": _INFORMATIONAL,
        "severity": "Informational",
        "time": milliseconds(parts.time_ns),
        "metadata": {
            "version": VERSION,
            "product": _PRODUCT,
            "uid": parts.id,
            "log_name": parts.kind,
            "profiles": profiles,
        },
        **kind.attributes(parts),
    }
    rest = parts.rest(MAPPED)
    if parts.count:
        found["count"] = parts.count
    if kind.uid:
        found["device"] = {"type_id": _UNKNOWN, "hostname": parts.node, "name": parts.node}
    else:  # a Base Event has no device
        rest["node_name"] = parts.node
    if rest:
        found["unmapped"] = rest
    return dumps(found)


def _actor(parts: Parts) -> Attributes:
    return {"process": _process(parts.process, parts.parent)}


# An event whose process is not known has an empty one: pid 0.
def _process(process: Any, parent: Any = None) -> Attributes:
    if process is None:
        return {"pid": 0}
    found: Attributes = {
        "pid": process.pid.value,
        "uid": process.exec_id,
        "name": name_of(process.binary),
        "cmd_line": command_line(process),
        "file": _file(process.binary),
        "created_time": milliseconds(process.start_time.ToNanoseconds()),
        "user": {"uid": str(process.uid.value)},
    }
    if name := user_name(process):
        found["user"]["name"] = name
    if process.HasField("tid"):
        found["tid"] = process.tid.value
    known = container(process)
    if known.get("id"):
        found["container"] = {"uid": known["id"]}
        if "name" in known:
            found["container"]["name"] = known["name"]
        if "image" in known:
            image_id = known.get("image_id", known["image"])
            found["container"]["image"] = {"uid": image_id, "name": known["image"]}
    if parent is not None:
        found["parent_process"] = _process(parent)
    return found


def _file(path: str) -> Attributes:
    return {"name": name_of(path) or "unknown", "path": path, "type_id": _REGULAR_FILE}
