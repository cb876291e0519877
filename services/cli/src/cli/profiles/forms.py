"""A profile as something that confines a program: seccomp, systemd, a tracing policy."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Sequence

from cli.profiles.model import Profile

# System calls that are always allowed: those of the launcher between installing the filter and
# execve(), and those of the kernel and the C library: exit, signals, restarts, and the fallback of
# the vDSO for a clock that it cannot read.
_ALWAYS = frozenset(
    {"execve", "exit", "exit_group", "rt_sigreturn", "rt_sigprocmask", "restart_syscall", "prctl",
     "close", "dup2", "dup3", "fcntl", "futex", "write", "clock_gettime", "gettimeofday", "getcpu"}
)  # fmt: skip
_ARCHITECTURES = {"x64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}
_MOST_PATHS = 50


def system_calls(profiles: Iterable[Profile]) -> list[str]:
    """Return the system calls that a filter has to allow."""
    return sorted(_ALWAYS.union(*(one.syscalls for one in profiles)))


def seccomp(profiles: Sequence[Profile]) -> str:
    """Return a profile as container engines take it (OCI runtime specification)."""
    abis = sorted({abi for one in profiles for abi in one.abis})
    document = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": [_ARCHITECTURES[abi] for abi in abis if abi in _ARCHITECTURES],
        "syscalls": [{"names": system_calls(profiles), "action": "SCMP_ACT_ALLOW"}],
    }
    return json.dumps(document, indent=2) + "\n"


def systemd(profiles: Sequence[Profile]) -> str:
    """Return a drop-in for a unit."""
    capabilities = sorted({name for one in profiles for name in one.capabilities})
    written = _topmost({path for one in profiles for path in one.written})
    lines = [
        "[Service]",
        "SystemCallArchitectures=native",
        "SystemCallErrorNumber=EPERM",
        "SystemCallFilter=",
        *(f"SystemCallFilter={name}" for name in system_calls(profiles)),
    ]
    if any("capabilities" in one.policies for one in profiles):
        lines.append(f"CapabilityBoundingSet={' '.join(capabilities)}")
    if any("files" in one.policies for one in profiles):
        lines += ["ProtectSystem=full", *(f"ReadWritePaths=-{path}" for path in written)]
    return "\n".join(lines) + "\n"


def tracing_policy(profiles: Sequence[Profile]) -> str:
    """Return a tracing policy that reports what is not in the profile."""
    name = "outside-" + "-".join(
        part for part in posixpath.basename(profiles[0].subject.name).lower().split("_") if part
    )
    calls = system_calls(profiles)
    binaries = [one.subject.name for one in profiles if one.subject.is_executable]
    lines = [
        "apiVersion: tetra.io/v1",
        "kind: TracingPolicy",
        f"metadata: {{name: {_dns(name)}}}",
        "spec:",
        "  lists:",
        "  - name: used",
        "    type: syscalls",
        f"    values: {json.dumps(['sys_' + call for call in calls])}",
        "  tracepoints:",
        "  - subsystem: raw_syscalls",
        "    event: sys_enter",
        "    message: system call outside of the profile",
        "    args: [{index: 4, type: syscall64}]",
        "    selectors:",
        f"    - {_who(profiles[0], binaries)}",
        '      matchArgs: [{args: [0], operator: NotInMap, values: ["list:used"]}]',
        "      matchActions: [{action: Post, rateLimit: 1m, rateLimitScope: process}]",
    ]
    return "\n".join(lines) + "\n"


FORMS = {"seccomp": seccomp, "systemd": systemd, "tracingpolicy": tracing_policy}


def _who(first: Profile, binaries: list[str]) -> str:
    if binaries:
        return f"matchBinaries: [{{operator: In, values: {json.dumps(binaries)}}}]"
    value = json.dumps(first.subject.name)
    return f"matchContainers: [{{field: name, operator: In, values: [{value}]}}]"


def _dns(name: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in name).strip("-")[:63]


def _topmost(paths: set[str]) -> list[str]:
    """Return the paths without those below another one."""
    kept: list[str] = []
    for path in sorted(paths):
        if not kept or not (path + "/").startswith(kept[-1].rstrip("/") + "/"):
            kept.append(path)
    return kept[:_MOST_PATHS]
