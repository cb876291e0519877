"""A program at the functions of all system calls, and at those of frequent ones for samples only.

A program at a function costs each call some 0.2 µs. Once a second the rates are read; an ordinary
call (`tracingpolicy.ordinary`) that the host makes more often than `FREQUENT` loses its program,
and has it for `SAMPLE_S` in every `EVERY_S`. It gets it back when the rate in a sample is below
`CALM`. All other calls keep theirs, whatever their rate.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from collector.bpf import links
from collector.bpf.links import Link
from collector.bpf.programs import Program
from collector.errors import AttachError
from collector.policies.maps import CALLS_MAX
from collector.policies.plan import CallFunction

FREQUENT, CALM = 1000.0, 500.0  # calls a second of the whole host
LOOK_S, EVERY_S, SAMPLE_S = 1.0, 20.0, 0.02
_COUNTS = struct.Struct(f"<{CALLS_MAX}Q")

log = structlog.get_logger()


@dataclass(slots=True)
class FrequentCalls:
    """Owns the links of one program; `start` raises `AttachError`.

    ``counts``: how often the program ran, by the number of the call. Detaching waits for all CPUs,
    so all functions that are followed share one link, and it is replaced when they change.
    """

    program: Program
    functions: tuple[str, ...]  # those of calls that are never sampled
    calls: tuple[CallFunction, ...]
    counts: mmap.mmap
    sampled: frozenset[CallFunction] = frozenset()
    _always: list[Link] = field(default_factory=list)
    _followed: Link | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Attach the program everywhere, and begin to look at the rates."""
        try:
            self._attach_always(self.functions)
            self._sample_only(frozenset())
        except AttachError:
            self.close()
            raise
        self._thread = threading.Thread(target=self._watch, name="system-calls", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Detach, and close the counts."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for link in (self._followed, *self._always):
            if link is not None:
                link.close()
        self._followed, self._always = None, []
        self.counts.close()

    def _attach_always(self, symbols: tuple[str, ...]) -> None:
        """Attach to all functions but those that cannot be hooked: one of them fails them all."""
        try:
            self._always.append(links.attach_kprobes(self.program, symbols))
        except AttachError as error:
            if error.errno != errno.ESRCH:
                raise
            if len(symbols) == 1:
                log.warning("system call not followed: cannot be hooked", function=symbols[0])
                return
            middle = len(symbols) // 2
            self._attach_always(symbols[:middle])
            self._attach_always(symbols[middle:])

    def _watch(self) -> None:
        sample_at = time.monotonic() + EVERY_S
        while True:
            rates = self._rates(LOOK_S)
            if self._stop.is_set():
                return
            frequent = {one for one in self.calls if rates[one.number] > FREQUENT}
            with contextlib.suppress(AttachError):  # the next look tries it again
                if not self.sampled.issuperset(frequent):
                    self._sample_only(self.sampled | frequent)
                if time.monotonic() >= sample_at:
                    sample_at = time.monotonic() + EVERY_S
                    self._sample()

    def _sample(self) -> None:
        """Attach to the frequent calls for a short time, then follow those that are rare again."""
        if not self.sampled:
            return
        link = links.attach_kprobes(self.program, _symbols(self.sampled))
        try:
            rates = self._rates(SAMPLE_S)
            calm = {one for one in self.sampled if rates[one.number] < CALM}
            if calm and not self._stop.is_set():
                self._sample_only(self.sampled - calm)
        finally:
            link.close()

    def _sample_only(self, sampled: frozenset[CallFunction]) -> None:
        """Follow all other ordinary calls: attach again before the old link is closed."""
        followed = [one for one in self.calls if one not in sampled]
        link = links.attach_kprobes(self.program, _symbols(followed)) if followed else None
        if self._followed is not None:
            self._followed.close()
        if sampled != self.sampled:
            log.debug("system calls sampled", numbers=sorted(one.number for one in sampled))
        self._followed, self.sampled = link, sampled

    def _rates(self, wait_s: float) -> dict[int, float]:
        """Return how often a second each ordinary call was seen while it waited."""
        before, began = _COUNTS.unpack_from(self.counts), time.monotonic()
        self._stop.wait(wait_s)
        after, took_s = _COUNTS.unpack_from(self.counts), time.monotonic() - began
        numbers = (one.number for one in self.calls)
        return {n: (after[n] - before[n]) / took_s for n in numbers}


def _symbols(calls: Iterable[CallFunction]) -> list[str]:
    return [one.symbol for one in calls]
