"""The capabilities that a collector needs, and whether a process has them."""

from __future__ import annotations

from pathlib import Path

# include/uapi/linux/capability.h
_BITS = {
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
NEEDED = ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")
# include/linux/capability.h: bpf_capable() and perfmon_capable() accept it instead ("capabilities:
# Introduce CAP_PERFMON" and "bpf, capability: Introduce CAP_BPF", both in v5.8).
_SYS_ADMIN_STANDS_FOR = ("CAP_BPF", "CAP_PERFMON")


def effective(status: Path = Path("/proc/self/status")) -> int:
    """Return the effective capabilities in a ``status`` file of /proc; raise `OSError`."""
    for line in status.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return int(value, 16)
    return 0


def missing(held: int) -> list[str]:
    """Return the names of the needed capabilities that the mask ``held`` lacks."""
    admin = held >> _BITS["CAP_SYS_ADMIN"] & 1
    return [
        name
        for name in NEEDED
        if not held >> _BITS[name] & 1 and not (admin and name in _SYS_ADMIN_STANDS_FOR)
    ]
