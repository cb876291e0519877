"""The login that a process descends from, as the kernel's audit numbers it.

pam_loginuid sets both numbers when sshd, login or cron begin a session; every descendant has them,
also below sudo and su, in a service, or on a host without systemd. systemd-logind names its session
by the same number: session-42.scope.
"""

from __future__ import annotations

from collector.metadata.users import Users
from collector.processes.pods import HostUnit

_NOBODY = 0xFFFFFFFF  # (uid_t)-1: nobody has logged in


def in_session(unit: HostUnit | None, auid: int, sessionid: int, users: Users) -> HostUnit:
    """Return ``unit`` with its session and user; what its cgroup says comes first."""
    known = unit or HostUnit()
    if known.session and known.session_user:
        return known
    user = known.session_user
    if not user and auid != _NOBODY:
        user = users.name(auid) or str(auid)
    return known._replace(session=known.session or str(sessionid), session_user=user)
