"""Names of users, from the host's passwd file."""

from __future__ import annotations

import os
import time
from pathlib import Path

_RECHECK_S = 5.0


class Users:
    """Names by uid, read again when the file changes.

    ``root`` is the proc file system: pid 1's root is the host's, also from a container.
    """

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._paths = (root / "1/root/etc/passwd", Path("/etc/passwd"))
        self._names: dict[int, str] = {}
        self._stamp: tuple[object, ...] = ()
        self._checked_s = float("-inf")

    def name(self, uid: int) -> str:
        """Return the name of ``uid``, or an empty string."""
        now = time.monotonic()
        if now - self._checked_s > _RECHECK_S:
            self._checked_s = now
            self._refresh()
        return self._names.get(uid, "")

    def _refresh(self) -> None:
        for path in self._paths:
            try:
                stat = os.stat(path)
                stamp = (path, stat.st_mtime_ns, stat.st_ino, stat.st_size)
                if stamp != self._stamp:
                    self._names = _parse(path.read_text(errors="replace"))
                    self._stamp = stamp
            except OSError:
                continue
            return


def _parse(text: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[2].isdecimal():
            names.setdefault(int(fields[2]), fields[0])  # the first of several wins, as in getpwuid
    return names
