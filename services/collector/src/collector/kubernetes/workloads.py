"""A pod as the API server describes it, in the collector's form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from collector.kubernetes.client import Resource
from collector.processes.pods import Pod, PodContainer

_STATUSES = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_PROBES = ("livenessProbe", "readinessProbe")
_CRON_JOB = re.compile(r"(.+)-\d{8,10}")  # the name of a CronJob's Job ends with its time
# A static pod's cgroups and runtime have this in place of the uid that the API server gives it.
_STATIC_UID = "kubernetes.io/config.hash"


class PodRecord(NamedTuple):
    """A pod with all its containers."""

    pod: Pod
    containers: dict[str, PodContainer]  # by name
    names: dict[str, tuple[str, str]]  # name and runtime by full id, of those that were started
    other_uid: str = ""  # of a static pod, at its runtime


def pod_record(item: Resource, *, annotations: bool = False) -> PodRecord:
    """Return the record of a pod; ``annotations``: with those."""
    about = item["metadata"]
    labels: dict[str, str] = about.get("labels") or {}
    noted: dict[str, str] = about.get("annotations") or {}
    workload, kind = _workload(about, labels)
    pod = Pod(
        about["namespace"], about["name"], about["uid"], _pairs(labels),
        _pairs(noted) if annotations else (), workload, kind,
    )  # fmt: skip
    statuses = {one["name"]: one for one in _each(item.get("status"), _STATUSES)}
    containers = {
        one["name"]: _container(one, statuses.get(one["name"], {}))
        for one in _each(item.get("spec"), _CONTAINERS)
    }
    names = {}
    for name, status in statuses.items():
        runtime, _, full_id = status.get("containerID", "").partition("://")
        if full_id:
            names[full_id] = (name, runtime)
    return PodRecord(pod, containers, names, noted.get(_STATIC_UID, ""))


def _pairs(found: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(found.items()))


def _each(of: Resource | None, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for key in keys:
        yield from (of or {}).get(key) or []


def _container(spec: dict[str, Any], status: dict[str, Any]) -> PodContainer:
    probes = (((spec.get(name) or {}).get("exec") or {}).get("command") for name in _PROBES)
    started = ((status.get("state") or {}).get("running") or {}).get("startedAt", "")
    return PodContainer(
        name=spec["name"],
        image=status.get("image", "") or spec.get("image", ""),
        image_id=status.get("imageID", ""),
        started_at_ns=int(datetime.fromisoformat(started).timestamp()) * 10**9 if started else 0,
        privileged=bool((spec.get("securityContext") or {}).get("privileged")),
        probes=tuple(tuple(one) for one in probes if one),
    )


def _workload(about: dict[str, Any], labels: dict[str, str]) -> tuple[str, str]:
    """Return name and kind of the pod's controller; without one, those of the pod itself."""
    owners = about.get("ownerReferences") or []
    owner = next((one for one in owners if one.get("controller")), None)
    if owner is None or not about.get("generateName"):
        return about["name"], "Pod"
    name, kind = owner["name"], owner["kind"]
    template = labels.get("pod-template-hash", "")
    if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
        return name.removesuffix(f"-{template}"), "Deployment"
    if kind == "ReplicationController" and "deploymentconfig" in labels:
        return labels["deploymentconfig"], "DeploymentConfig"
    if kind == "Job" and (match := _CRON_JOB.fullmatch(name)):
        return match[1], "CronJob"
    return name, kind
