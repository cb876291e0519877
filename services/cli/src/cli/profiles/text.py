"""A profile as text, with its evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

from cli.profiles.model import Profile
from cli.terminal import visible
from cli.timestamps import duration_text
from cli.words import counted

_MOST = 20
# What each section needs, and the policy that reports it.
_POLICIES = {
    "files": "files", "peers": "network", "capabilities": "capabilities", "syscalls": "syscalls",
}  # fmt: skip


def text(profile: Profile, begins_ns: int = 0) -> str:
    """Return what was seen, section by section, then the evidence."""
    lines = [f"profile of {visible(profile.subject.name)}"]
    lines += _counted("executables started", profile.started)
    lines += _counted("files read, by directory", profile.read)
    lines += _counted("files written, by directory", profile.written)
    lines += _counted("peers", profile.connected)
    lines += _listed("listens on", profile.listened)
    lines += _listed("capabilities", profile.capabilities)
    lines += _listed("system calls", profile.syscalls | profile.compat_syscalls)
    return "\n".join([*lines, *certainty(profile, begins_ns)]) + "\n"


def certainty(profile: Profile, begins_ns: int = 0) -> list[str]:
    """Return the evidence of the profile: time, instances, losses, silent policies.

    ``begins_ns``: the time of the first event that was read, of any process.
    """
    lines = ["", "certainty"]
    if begins_ns:
        begins = datetime.fromtimestamp(begins_ns // 10**9, UTC)
        lines.append(f"  from events since {begins:%FT%TZ}")
    if not profile.instances:
        return [*lines, "  the stream has no events of it: is the name complete?"]
    nodes = counted(len(profile.nodes), "node")
    lines.append(
        f"  {duration_text(profile.span_s)} between its first and last event, "
        f"{counted(profile.instances, 'instance')} on {nodes}"
    )
    if profile.lost or profile.gaps:
        lines.append(
            f"  {counted(profile.lost, 'event')} lost, {counted(profile.gaps, 'gap')}: "
            "the profile may be incomplete"
        )
    else:
        lines.append("  no event was lost")
    if not profile.executed:
        lines.append("  none was started in that time: it lacks what a start needs")
    silent = [name for name in _POLICIES.values() if name not in profile.policies]
    if silent:
        lines.append(
            f"  nothing from {', '.join(silent)}: it did nothing of the kind, or they were not "
            "loaded when it did: tetra policies"
        )
    if "syscalls" in profile.policies:
        lines.append(
            "  system calls: of ordinary ones, such as read, single uses may be missing where they "
            "are frequent; every form allows them"
        )
    if "files" in profile.policies:
        lines.append("  files: only those below the paths that policy files watches")
    return lines


def _counted(title: str, counts: Counter[str]) -> list[str]:
    if not counts:
        return []
    rows = [f"  {count:>7}  {visible(name)}" for name, count in counts.most_common(_MOST)]
    more = len(counts) - _MOST
    return ["", title, *rows, *([f"           and {more} more"] if more > 0 else [])]


def _listed(title: str, names: Iterable[str]) -> list[str]:
    found = sorted(map(visible, names))
    if not found:
        return []
    lines, line = [], " "
    for name in found:
        if len(line) + 1 + len(name) > 80:
            lines.append(line)
            line = " "
        line += f" {name}"
    return ["", f"{title} ({len(found)})", *lines, line]
