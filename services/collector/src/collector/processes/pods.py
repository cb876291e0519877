"""Where a process belongs beyond its container: a pod of Kubernetes, or a unit of systemd."""

from __future__ import annotations

from typing import NamedTuple

Pairs = tuple[tuple[str, str], ...]


class PodContainer(NamedTuple):
    """A pod's container, as the API server describes it."""

    name: str
    image: str = ""
    image_id: str = ""
    started_at_ns: int = 0  # calendar clock; 0: not running
    privileged: bool = False
    probes: tuple[tuple[str, ...], ...] = ()  # commands of its liveness and readiness probes


class Pod(NamedTuple):
    """A pod; ``container`` is the one that the process runs in, where it is known."""

    namespace: str
    name: str
    uid: str
    labels: Pairs = ()
    annotations: Pairs = ()
    workload: str = ""  # empty where only the container runtime knows the pod
    workload_kind: str = ""
    container: PodContainer | None = None


class HostUnit(NamedTuple):
    """Where systemd runs a process; the fields of tetra.v1.HostUnit."""

    unit: str = ""
    slice: str = ""
    user_unit: str = ""
    session: str = ""
    session_user: str = ""
