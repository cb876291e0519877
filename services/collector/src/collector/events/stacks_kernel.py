"""Kernel addresses to functions, from /proc/kallsyms."""

from __future__ import annotations

import re
import time
from array import array
from bisect import bisect_right
from pathlib import Path

import structlog

# A module that was loaded later has symbols that were not read.
_RENEW_EVERY_S = 30.0
_MODULE_SPAN = 1 << 20  # a function is shorter: an offset beyond it is of something unknown

_LINE = re.compile(rb"([0-9a-f]+) (\S) (\S+)(?:\s+\[[^\]]*\])?\n")

log = structlog.get_logger()


class KernelSymbols:
    """Function symbols, in some 6 MB; nothing is read before the first look-up."""

    def __init__(self, file: Path = Path("/proc/kallsyms")) -> None:
        self._file = file
        self._addresses = array("Q")
        self._ends = array("I")  # of each name in _names; an empty name is no function
        self._names = b""
        self._read_s = 0.0
        self._warned = False

    def load(self) -> None:
        """Read the symbols, again if they have been read."""
        self._read_s = time.monotonic()
        try:
            data = self._file.read_bytes()
        except OSError as error:
            self._warn(error.strerror or str(error))
            return
        entries = sorted(
            (int(address, 16), name if kind in b"tTwW" else b"")
            for address, kind, name in _LINE.findall(data)
        )
        if not entries or not entries[-1][0]:
            self._warn("all addresses are zero: CAP_SYSLOG or kernel.kptr_restrict=0 shows them")
            return
        names = [name for _, name in entries]
        self._addresses = array("Q", [address for address, _ in entries])
        self._names = b"".join(names)
        end, ends = 0, array("I")
        for name in names:
            ends.append(end := end + len(name))
        self._ends = ends

    def find(self, address: int) -> tuple[bytes, int] | None:
        """Return the function that ``address`` is in and the offset there, or None."""
        if not self._read_s:
            self.load()
        found = self._look_up(address)
        if found is not None or time.monotonic() - self._read_s < _RENEW_EVERY_S:
            return found
        self.load()
        return self._look_up(address)

    def _look_up(self, address: int) -> tuple[bytes, int] | None:
        at = bisect_right(self._addresses, address) - 1
        if at < 0:
            return None
        name = self._names[self._ends[at - 1] if at else 0 : self._ends[at]]
        start = self._addresses[at]
        # Aliases share an address: the first that is a function.
        while not name and at and self._addresses[at - 1] == start:
            at -= 1
            name = self._names[self._ends[at - 1] if at else 0 : self._ends[at]]
        offset = address - start
        return (name, offset) if name and offset < _MODULE_SPAN else None

    def _warn(self, cause: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("kernel symbols not read", file=str(self._file), cause=cause)
