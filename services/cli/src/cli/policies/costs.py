"""What hooks cost, by mechanism: the table in docs/policies.md, measured on x86-64 with Linux 6.18.

fentry, fexit, LSM and kprobe are from ratios on guests, where the host cannot load them.
"""

from __future__ import annotations

# Nanoseconds that a hook adds to a call that the policy does not report.
_NS = {
    "fentry": 25,
    "fexit": 25,
    "fmod_ret": 25,
    "lsm": 25,
    "kprobe": 50,
    "kretprobe": 60,
    "kprobe.multi": 50,
    "kretprobe.multi": 60,
    "kprobe.multi of all system calls": 50,
    "raw_tracepoint": 20,
    "tp_btf": 50,
    "tracepoint": 95,
    "uprobe": 6400,
    "uretprobe": 6500,
    "uprobe.multi": 5900,
    "uretprobe.multi": 6000,
}
# Programs of these see every system call of the host, whatever the policy names; all policies
# share one.
_EVERY_SYSCALL_NS = 20
_DISPATCHERS = ("raw_tracepoint sys_enter", "raw_tracepoint sys_exit")
REPORTED = (
    "A call that is reported takes 100 ns more, and its arguments:",
    "75 ns for a path, 10 to 80 ns for a string, 700 ns for a stack trace.",
)


def cost_text(entry: str, exit: str) -> str:
    """Return the cost of a call that these mechanisms hook and the policy does not report."""
    used = [one for one in (entry, exit) if one]
    if not used:
        return "-"
    total_ns = sum(_NS.get(one, 0) for one in used)
    shared = sum(one in _DISPATCHERS for one in used)
    parts = []
    if any(one not in _NS and one not in _DISPATCHERS for one in used):
        return "not measured"
    if total_ns:
        parts.append(f"{_time_text(total_ns)} a call")
    if shared:
        parts.append(f"{_EVERY_SYSCALL_NS * shared} ns every system call of the host")
    return ", ".join(parts)


def _time_text(ns: int) -> str:
    return f"{ns / 1000:.1f} µs" if ns >= 1000 else f"{ns} ns"
