"""Kernel addresses to functions, from /proc/kallsyms."""

from __future__ import annotations

import re
import time
from array import array
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

import structlog

# A module that was loaded later has symbols that were not read.
_RENEW_EVERY_S = 30.0
_MODULE_SPAN = 1 << 20  # a function is shorter: an offset beyond it is of something unknown

_LINE = re.compile(rb"([0-9a-f]+) (\S) (\S+)(?:\s+\[[^\]]*\])?\n")

log = structlog.get_logger()


class _Symbols(NamedTuple):
    addresses: array[int]
    ends: array[int]  # of each name in `names`; an empty name is no function
    names: bytes


class KernelSymbols:
    """Function symbols, in some 6 MB; nothing is read before the first look-up."""

    def __init__(self, file: Path = Path("/proc/kallsyms")) -> None:
        self._file = file
        self._symbols = _Symbols(array("Q"), array("I"), b"")
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
        end, ends = 0, array("I")
        for _, name in entries:
            ends.append(end := end + len(name))
        # At once: this can run in a thread.
        self._symbols = _Symbols(
            array("Q", [address for address, _ in entries]),
            ends,
            b"".join([name for _, name in entries]),
        )

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
        addresses, ends, names = self._symbols
        at = bisect_right(addresses, address) - 1
        if at < 0:
            return None
        name = names[ends[at - 1] if at else 0 : ends[at]]
        start = addresses[at]
        # Aliases share an address: the first that is a function.
        while not name and at and addresses[at - 1] == start:
            at -= 1
            name = names[ends[at - 1] if at else 0 : ends[at]]
        offset = address - start
        return (name, offset) if name and offset < _MODULE_SPAN else None

    def _warn(self, cause: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("kernel symbols not read", file=str(self._file), cause=cause)
