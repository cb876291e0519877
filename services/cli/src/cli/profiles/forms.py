"""A profile as something that confines a program: seccomp, systemd, a tracing policy."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence

from cli.profiles.model import Profile
from cli.profiles.paths import writable
from cli.terminal import visible
from tracingpolicy.ordinary import ORDINARY

# System calls that are always allowed: ordinary ones, of which policy syscalls may miss some; those
# of the launcher between installing the filter and execve(); exit and restarts. Among the ordinary
# ones is what the vDSO falls back to for a clock that it cannot read.
_ALWAYS = ORDINARY | {"execve", "exit", "exit_group", "restart_syscall", "prctl"}
# The C library tries the newer call and falls back to the older one if the kernel lacks it, ENOSYS.
# A filter that the profile was collected under answers so, such as RestrictNamespaces= and
# RestrictSUIDSGID= of systemd or the default of Docker: then the newer call is not in the profile,
# and under the profile it would fail with EPERM. It can do no more than the older one, without a
# filter on arguments.
_NEWER = {"clone": "clone3", "openat": "openat2", "fchmodat": "fchmodat2", "access": "faccessat2",
          "faccessat": "faccessat2"}  # fmt: skip
# What runc calls between the filter and execve of the container's program, in Go: it closes
# descriptors (/proc/self/fd), drops capabilities, changes user and directory
# (libcontainer/standard_init_linux.go, init_linux.go: finalizeNamespace).
_RUNTIME = frozenset(
    {"capget", "capset", "chdir", "fchown", "fstatfs", "getcwd", "setgid", "setgroups", "setuid",
     "sigaltstack", "tgkill"}
)  # fmt: skip
_ARCHITECTURES = {"x64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}
# Events carry names: no other text may become a line of a drop-in, which root runs.
_NAME = re.compile("[A-Za-z0-9_]+")


def system_calls(profiles: Iterable[Profile]) -> list[str]:
    """Return the system calls that a filter has to allow."""
    used = _ALWAYS.union(*(_names(one.syscalls) for one in profiles))
    return sorted(used | {_NEWER[name] for name in used & _NEWER.keys()})


def seccomp(profiles: Sequence[Profile], named: int = 1) -> str:
    """Return a profile as container engines take it (OCI runtime specification)."""
    del named
    abis = sorted({abi for one in profiles for abi in one.abis})
    names = sorted(_RUNTIME.union(system_calls(profiles)))
    document = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": [_ARCHITECTURES[abi] for abi in abis if abi in _ARCHITECTURES],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    }
    return json.dumps(document, indent=2) + "\n"


def systemd(profiles: Sequence[Profile], named: int = 1) -> str:
    """Return a drop-in for a unit."""
    del named
    capabilities = sorted({name for one in profiles for name in _names(one.capabilities)})
    lines = [
        "[Service]",
        "SystemCallArchitectures=native",
        "SystemCallErrorNumber=EPERM",
        "SystemCallFilter=",
        *(f"SystemCallFilter={name}" for name in system_calls(profiles)),
    ]
    if any("capabilities" in one.policies for one in profiles):
        # The first line removes what the unit has: each further one only adds.
        lines += ["CapabilityBoundingSet=", f"CapabilityBoundingSet={' '.join(capabilities)}"]
    if any("files" in one.policies for one in profiles):
        lines += writable(profiles).lines()
    return "\n".join(lines) + "\n"


def tracing_policy(profiles: Sequence[Profile], named: int = 1) -> str:
    """Return a tracing policy that reports what is not in the profile.

    The first ``named`` profiles are those of the subjects; what they start is followed.
    """
    name = "outside-" + "-".join(
        part for part in posixpath.basename(profiles[0].subject.name).lower().split("_") if part
    )
    calls = system_calls(profiles)
    lines = [
        "apiVersion: tetra.io/v1",
        "kind: TracingPolicy",
        f"metadata: {{name: {_dns(name)}}}",
        "spec:",
        "  lists:",
        "  - name: used",
        "    type: syscalls",
        f"    values: {_yaml(['sys_' + call for call in calls])}",
        "  tracepoints:",
        "  - subsystem: raw_syscalls",
        "    event: sys_enter",
        "    message: system call outside of the profile",
        "    args: [{index: 4, type: syscall64}]",
        "    selectors:",
    ]
    for who in _who(profiles[:named]):
        lines += [
            f"    - {who}",
            '      matchArgs: [{args: [0], operator: NotInMap, values: ["list:used"]}]',
            "      matchActions: [{action: Post, rateLimit: 1m, rateLimitScope: process}]",
        ]
    return "\n".join(lines) + "\n"


FORMS = {"seccomp": seccomp, "systemd": systemd, "tracingpolicy": tracing_policy}


def matched_binaries(named: Iterable[Profile]) -> list[str]:
    """Return the executables that the tracing policy of the subjects matches."""
    return sorted(set[str]().union(*map(_binaries, named)))


def _binaries(one: Profile) -> set[str]:
    if one.subject.is_executable:
        return {one.subject.name}
    return one.commands if one.subject.is_unit else set()  # a policy cannot match units


def _who(named: Sequence[Profile]) -> Iterator[str]:
    """Yield filters, one a selector, of which one matches what the subjects and theirs do."""
    binaries = matched_binaries(named)
    containers = [one.subject.name for one in named if not _binaries(one)]
    if binaries:
        values = _yaml(binaries)
        yield f"matchBinaries: [{{operator: In, values: {values}, followChildren: true}}]"
    if containers:
        values = _yaml(containers)
        yield f"matchContainers: [{{field: name, operator: In, values: {values}}}]"


def _names(found: Iterable[str]) -> set[str]:
    return {name for name in found if _NAME.fullmatch(name)}


def _yaml(value: list[str]) -> str:
    """Return a sequence of texts; what is not printable as an escape that YAML knows."""
    return visible(json.dumps(value, ensure_ascii=False))


def _dns(name: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in name)[:63].strip("-")
