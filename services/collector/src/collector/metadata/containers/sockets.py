"""The container engines of a host, by their sockets."""

from __future__ import annotations

import os
from pathlib import Path

from collector.metadata.containers.docker import PODMAN, Docker
from collector.metadata.containers.engine import Engine
from collector.metadata.containers.nri import Nri

# Where containerd and CRI-O listen, k3s's containerd too.
CRI_SOCKETS = (
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
)
AUTO = "auto"


def engines(docker: str, podman: str, cri: str, nri: str) -> list[Engine]:
    """Return the engines of these settings; ``cri``: paths, "auto", or nothing."""
    found: list[Engine] = []
    if docker:
        found.append(Docker(docker))
    if podman and Path(podman).exists() and not _same(podman, docker):
        found.append(Docker(podman, PODMAN))
    paths = [path for path in CRI_SOCKETS if Path(path).exists()]
    if cri != AUTO:
        paths = [path.removeprefix("unix://") for path in cri.split(",") if path]
    if paths:
        # The collector forks for its compiler only, which makes no calls.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
        # gRPC takes 20 MB of memory: only where there is a runtime to ask.
        from collector.metadata.containers.cri import CriRuntime

        found += [CriRuntime(path) for path in paths]
    if nri:
        found.append(Nri(nri))
    return found


def _same(one: str, other: str) -> bool:
    """Return whether two paths are one socket: Podman's may have Docker's name too."""
    return bool(other) and Path(one).resolve() == Path(other).resolve()
