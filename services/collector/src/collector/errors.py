"""Errors of the collector.

ServiceError (chassis: one line on stderr, exit code)
├── KernelError     this kernel or these rights cannot carry the probes
├── ProbeError      compiling, loading or attaching failed
│   ├── CompileError    the compiler refused the C text, or is not installed
│   ├── VerifierError   the kernel refused a program; keeps the verifier's log
│   └── AttachError     the kernel refused to attach a program
├── KubernetesError the API server did not answer, or refused
└── SecondCollector another collector of this node is running
BtfError            the kernel's type information is damaged, or lacks a type, member or function
DecodeError         a record of the ring buffer is malformed
"""

from __future__ import annotations

import errno
import os

from chassis.errors import ServiceError


class KernelError(ServiceError):
    """This kernel or these rights cannot carry the probes; the text says how to get them."""


class ProbeError(ServiceError):
    """Compiling, loading or attaching the probes failed. ``log`` has the compiler's output."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class CompileError(ProbeError):
    """The compiler refused the C text, or is not installed; ``log`` is all that it printed."""


class VerifierError(ProbeError):
    """The kernel refused a program: ``log`` is the verifier's, the message quotes its end."""

    def __init__(self, name: str, kind: str, code: int, log: str) -> None:
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        said = [line for line in lines if not line.startswith(("processed ", "verification time"))]
        reason = f"verifier: {said[-1]}" if said else os.strerror(code)
        if code == errno.EPERM:
            reason += ": CAP_BPF or CAP_PERFMON is missing, or this kernel refuses this kind"
        super().__init__(f"load {name}: {kind}: {reason}", log)
        self.reason = reason
        self.name = name
        self.kind = kind
        self.errno = code


class AttachError(ProbeError):
    """The kernel refused to attach a program to its target."""

    def __init__(self, kind: str, target: str, code: int, reason: str) -> None:
        hint = ""
        if code in (errno.EACCES, errno.EPERM) and kind.endswith("probe"):
            hint = (
                ": perf events of kprobes and uprobes need CAP_SYS_ADMIN or a lower "
                "kernel.perf_event_paranoid"
            )
        super().__init__(f"attach {target}: {kind}: {reason}{hint}")
        self.reason = f"{reason}{hint}"
        self.kind = kind
        self.target = target
        self.errno = code


class BtfError(ServiceError):
    """The kernel's type information is damaged, or lacks what was asked for.

    ``nearest``: names that look like the one that is missing, best first.
    """

    def __init__(self, message: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.nearest = nearest


class KubernetesError(ServiceError):
    """The API server did not answer, or refused: then ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class SecondCollector(ServiceError):
    """Another collector of this node is running."""


class DecodeError(ValueError):
    """A record of the ring buffer is malformed: a bug, or another version of the probes."""

    def __init__(self, what: str, size_bytes: int) -> None:
        super().__init__(f"decode: {what}: {size_bytes} bytes")
        self.size_bytes = size_bytes
