"""Whether the kernel supports enforcement actions: found by trying, like kinds of programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from collector.bpf.features import Features
from collector.bpf.programs import Kind

_OVERRIDE_RETURN, _PROBE_WRITE_USER = 58, 36  # enum bpf_func_id
# *(u64 *)(r1 + 80) = 0: a register of the context of a uprobe
_WRITE_REGISTER = bytes.fromhex("7a01500000000000")


class ActingFeatures(Protocol):
    """Each method returns why something cannot be done here; empty if it can."""

    def why_no_gate(self, kind: Kind, function: int) -> str:
        """Replacing the result of a function, by its id in the kernel's BTF."""

    def why_no_override_helper(self) -> str:
        """bpf_override_return() in kprobes."""

    def why_no_register_writes(self) -> str:
        """Writing the registers of a program in uprobes."""

    def why_no_memory_writes(self) -> str:
        """bpf_probe_write_user() in uprobes."""


class Anything(ActingFeatures):
    """For checks without the collector's rights: everything is assumed to work."""

    def why_no_gate(self, kind: Kind, function: int) -> str:
        """See `ActingFeatures`."""
        return ""

    def why_no_override_helper(self) -> str:
        """See `ActingFeatures`."""
        return ""

    def why_no_register_writes(self) -> str:
        """See `ActingFeatures`."""
        return ""

    def why_no_memory_writes(self) -> str:
        """See `ActingFeatures`."""
        return ""


@dataclass(slots=True)
class KernelActions(ActingFeatures):
    """The running kernel."""

    features: Features

    def why_no_gate(self, kind: Kind, function: int) -> str:
        """See `ActingFeatures`."""
        return self.features.why_not(kind) or self.features.why_not_function(kind, function)

    def why_no_override_helper(self) -> str:
        """Kernels without CONFIG_BPF_KPROBE_OVERRIDE do not know the helper."""
        if reason := self.features.why_not(Kind.KPROBE):
            return f"kprobe: {reason}"
        if self.features.has_helper(Kind.KPROBE, _OVERRIDE_RETURN):
            return ""
        return "the kernel has no such helper (CONFIG_BPF_KPROBE_OVERRIDE)"

    def why_no_register_writes(self) -> str:
        """Commit "bpf: Allow uprobe program to change context registers", newer than v6.18."""
        return self.features.why_not_code(Kind.UPROBE, _WRITE_REGISTER)

    def why_no_memory_writes(self) -> str:
        """kernel/trace/bpf_trace.c, bpf_get_probe_write_proto()."""
        if self.features.has_helper(Kind.UPROBE, _PROBE_WRITE_USER):
            return ""
        return "bpf_probe_write_user needs CAP_SYS_ADMIN, and a kernel without lockdown"
