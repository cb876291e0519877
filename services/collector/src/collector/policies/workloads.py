"""Which filters select a container: the bits of its cgroups."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from collector.policies.groups import POD, UNKNOWN, Group, Workload
from collector.processes.table import ContainerInfo
from tracingpolicy.operators import Operator
from tracingpolicy.selectors import LabelSelector, MatchContainers
from tracingpolicy.values import ContainerField

# Labels for podSelector in addition to those of the pod, as in Tetragon.
_NAMESPACE_LABEL = "k8s:io.kubernetes.pod.namespace"
# Cgroups that a kubelet makes: below one of these names, or next to other containers of the pod.
_KUBERNETES = re.compile(r"(?:.*-)?kubepods(?:[-.].*)?|pod[0-9a-f]{8}[-_].*|.*-pod[0-9a-f]{8}_.*")


def bits_of(
    full_id: str, path: Iterable[str], info: ContainerInfo | None, active: Mapping[Group, int]
) -> int:
    """Return the value of a container's cgroup; ``info``: None while only its id is known."""
    bits = 0
    if (info is not None and info.pod is not None) or any(map(_KUBERNETES.fullmatch, path)):
        bits |= POD
    if info is None:
        bits |= UNKNOWN
    for group, mask in active.items():
        if isinstance(group, MatchContainers):
            selected = _matches(group, full_id, info)
        else:
            selected = isinstance(group, Workload) and info is not None and _in(group, info)
        bits |= mask if selected else 0
    return bits


def _in(workload: Workload, info: ContainerInfo) -> bool:
    pod = info.pod
    if pod is None or (workload.namespace and pod.namespace != workload.namespace):
        return False
    if workload.pods is not None:
        labels = dict(pod.labels) | {_NAMESPACE_LABEL: pod.namespace}
        if not selects(workload.pods, labels):
            return False
    if workload.containers is None:
        return True
    about = {"name": info.name, "repo": repository(info.image)}
    return bool(info.name) and selects(workload.containers, about)


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Return whether a Kubernetes label selector selects these labels."""
    if any(labels.get(key) != value for key, value in selector.labels):
        return False
    for one in selector.expressions:
        if one.operator in ("In", "NotIn"):
            found = labels.get(one.key) in one.values
        else:
            found = one.key in labels
        if found is not (one.operator in ("In", "Exists")):
            return False
    return True


def repository(image: str) -> str:
    """Return an image's name without tag and digest."""
    name = image.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(":")[0]


def _matches(group: MatchContainers, full_id: str, info: ContainerInfo | None) -> bool:
    if group.what is ContainerField.ID:
        text = full_id
    elif info is None:
        return False
    else:
        text = info.name if group.what is ContainerField.NAME else info.image
    if group.operator is Operator.PREFIX:
        return text.startswith(group.values)
    if group.operator is Operator.POSTFIX:
        return text.endswith(group.values)
    return text in group.values
