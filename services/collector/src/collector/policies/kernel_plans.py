"""Planning and translation on this kernel, with its types; imported when a policy is not kept."""

from __future__ import annotations

from functools import partial

from collector.bpf.base import bpf_folder
from collector.bpf.btf import Btf
from collector.bpf.features import Features
from collector.bpf.kernel import KernelInfo
from collector.bpf.maps import possible_cpus
from collector.bpf.rate import Rate
from collector.policies.check import Host
from collector.policies.direct_reads import direct_reads
from collector.policies.plan_policy import plan_policy
from collector.policies.planner import KernelPlans
from collector.policies.translate import Kernel, translate


def kernel_plans(
    info: KernelInfo, request_hosts: frozenset[str], throttle: Rate | None
) -> KernelPlans:
    """Read the kernel's types; raise `BtfError` or `ProbeError`."""
    btf = Btf.vmlinux(info.btf)
    features = Features(btf)
    host = Host.of(features)
    host.request_hosts = request_hosts
    kernel = Kernel(
        btf,
        possible_cpus(),
        bpf_folder(),
        direct_reads(features),
        throttle=throttle,
        cgroup_subsys=info.cgroup_subsys,
    )
    return KernelPlans(
        partial(plan_policy, host=host),
        partial(plan_policy, host=host.without_trampolines()),
        partial(translate, kernel=kernel),
    )
