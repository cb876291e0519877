"""What can go wrong in the collector.

ServiceError (chassis: one line on stderr, exit code)
├── KernelError     this kernel or these rights cannot carry the probes
├── ProbeError      compiling, loading or attaching failed
└── SecondCollector another collector already tells this node
DecodeError         a record of the ring buffer is malformed
"""

from __future__ import annotations

from chassis.errors import ServiceError


class KernelError(ServiceError):
    """This kernel or these rights cannot carry the probes; the text says how to get them."""


class ProbeError(ServiceError):
    """Compiling, loading or attaching the probes failed. ``log`` keeps all the compiler said."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class SecondCollector(ServiceError):
    """Another collector already tells this node."""


class DecodeError(ValueError):
    """A record of the ring buffer is malformed: a bug, or another version of the probes."""

    def __init__(self, what: str, size_bytes: int) -> None:
        super().__init__(f"decode: {what}: {size_bytes} bytes")
        self.size_bytes = size_bytes
