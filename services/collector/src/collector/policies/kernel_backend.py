"""The loader of policies for this kernel, created with the first policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from collector.bpf.base import bpf_folder
from collector.bpf.kernel import KernelInfo
from collector.bpf.maps import raise_memlock_limit
from collector.bpf.objects import Objects
from collector.bpf.rate import Rate
from collector.policies.backend import KernelBackend
from collector.policies.enforcement import Enforcement
from collector.policies.install import SharedMaps
from collector.policies.planner import KernelPlans, Planner
from collector.policies.ready import ReadyPolicies
from collector.policies.scope import WatchedContainers


def kernel_backend(
    kernel: KernelInfo,
    shared: Mapping[str, int],
    procfs: Path = Path("/proc"),
    containers: WatchedContainers | None = None,
    acting: Enforcement | None = None,
    request_hosts: frozenset[str] = frozenset(),
    throttle: Rate | None = None,
) -> KernelBackend:
    """Return a backend for this kernel; raise `BtfError` or `ProbeError`.

    ``shared``: descriptors of the base programs' maps ``events`` and ``processes``.
    """
    raise_memlock_limit()
    folder = bpf_folder()

    def read_types() -> KernelPlans:
        # Here, in the planner's thread: where all policies are kept, none of it is needed.
        from collector.policies.kernel_plans import kernel_plans

        return kernel_plans(kernel, request_hosts, throttle)

    return KernelBackend(
        Planner(read_types),
        SharedMaps.create(
            shared["events"],
            shared["processes"],
            procfs,
            containers,
            acting,
            throttled=throttle is not None,
        ),
        Objects(kernel.cache, kernel.build, folder),
        ReadyPolicies(
            kernel.cache,
            kernel.build,
            folder,
            (*sorted(request_hosts), f"throttle {throttle} {kernel.cgroup_subsys}"),
        ),
    )
