"""Labels of a pod's sandbox: those of the pod, and some that a kubelet adds."""

from __future__ import annotations

from collections.abc import Mapping

from collector.processes.pods import Pairs

_ADDED = frozenset(
    {
        *(f"io.kubernetes.pod.{what}" for what in ("name", "namespace", "uid")),
        "io.kubernetes.container.name",
    }
)


def labels_of_pod(labels: Mapping[str, str]) -> Pairs:
    """Return the labels of a sandbox that are those of its pod."""
    return tuple(sorted((key, value) for key, value in labels.items() if key not in _ADDED))
