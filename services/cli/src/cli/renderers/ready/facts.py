"""Policies ``syscalls`` and ``capabilities``: what an executable used for the first time."""

from __future__ import annotations

from typing import Any

from cli.renderers.ready.act import Act


def act(body: Any) -> Act:
    """Return the fact."""
    return Act("📌", body.message or "fact", fact_of(body))


def _capability(name: str) -> str:
    """Return the kernel's name; the event's is Tetragon's, which lacks the prefix for one."""
    return name if name.startswith("CAP_") or name.isdecimal() else f"CAP_{name}"


def fact_of(body: Any) -> str:
    """Return the name of the system call or capability; "" if the event has none."""
    from cli.renderers import syscalls

    for one in body.args:
        if one.HasField("capability_arg"):
            return _capability(one.capability_arg.name or str(one.capability_arg.value.value))
        if one.HasField("syscall_id"):
            described = syscalls.describe(one.syscall_id.id, one.syscall_id.abi, ())
            return described.partition("(")[0]
    return ""
