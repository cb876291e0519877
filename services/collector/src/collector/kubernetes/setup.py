"""The connection to the API server, by the settings."""

from __future__ import annotations

from dataclasses import dataclass

from collector.kubernetes.access import access
from collector.kubernetes.client import ApiClient
from collector.kubernetes.node import KubernetesNode
from collector.kubernetes.pods import KubernetesPods
from collector.settings import Settings


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """One API server, and the resources that are followed there."""

    client: ApiClient
    pods: KubernetesPods
    node: KubernetesNode


def kubernetes(settings: Settings) -> Kubernetes:
    """Return it, not started; raise `KubernetesError`."""
    client = ApiClient(access(settings.k8s_kubeconfig_path))
    pods = KubernetesPods(
        client,
        settings.k8s_node_name,
        deleted_max=settings.deleted_pod_cache_size,
        annotations=settings.enable_pod_annotations,
    )
    return Kubernetes(client, pods, KubernetesNode(client, settings.k8s_node_name))
