"""The base probes: loaded from their cached object, or compiled first, and attached.

The probes live as long as their file descriptors: when the collector ends, the kernel detaches
everything that is not pinned (see pins.py).
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from collector.bpf import base, maps
from collector.bpf.base import (
    CredentialsHook,
    bpf_folder,
    compiler_flags,
    credentials_hooks,
    ring_size_bytes,
)
from collector.bpf.kernel import KernelInfo
from collector.bpf.loader import Loaded, load_object
from collector.bpf.maps import BpfMap
from collector.bpf.objects import Objects
from collector.bpf.ring import Ring
from collector.errors import AttachError, ProbeError, VerifierError

__all__ = ["Probes", "bpf_folder", "compiler_flags", "open_probes", "ring_size_bytes"]

# Maps whose descriptors stay open: a program array that user space does not hold is emptied.
MAPS = (*base.SHARED_MAPS, "exec_stages")
OPTIONAL_MAPS = base.THROTTLE_MAPS

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ThrottleMaps:
    """The kernel's maps for throttling of process events: bpf/lib/withhold.h."""

    rates: BpfMap  # by cgroup
    withheld: BpfMap  # living images that were not reported
    totals: BpfMap  # what was withheld, by kind

    @classmethod
    def of(cls, fds: dict[str, int]) -> ThrottleMaps:
        """Return the maps with these file descriptors."""
        rates, withheld, totals = base.THROTTLE_MAPS
        return cls(
            BpfMap(fds[rates], key_size=16, value_size=72),
            BpfMap(fds[withheld], key_size=16, value_size=24),
            BpfMap(fds[totals], key_size=4, value_size=8, per_cpu=True),
        )

    def fds(self) -> dict[str, int]:
        """Return the file descriptors, as `of` takes them."""
        of = (self.rates.fd, self.withheld.fd, self.totals.fd)
        return dict(zip(base.THROTTLE_MAPS, of, strict=True))

    def close(self) -> None:
        """Close the maps."""
        for one in (self.rates, self.withheld, self.totals):
            one.close()


@dataclass(slots=True)
class Probes:
    """Owns the attached probes: `close` detaches them, unless they are kept (see pins.py)."""

    ring: Ring
    processes: BpfMap
    lost: BpfMap
    hooks: tuple[str, ...]
    throttle: ThrottleMaps | None  # None: process life is not throttled
    # File descriptors that only have to stay open, those of the maps above included.
    _held: dict[str, int]

    @classmethod
    def of(cls, fds: dict[str, int], ring_size_bytes: int) -> Probes:
        """Return the probes with these file descriptors: of MAPS, and of links by their hooks."""
        own = (*base.SHARED_MAPS, *OPTIONAL_MAPS)
        held = {name: fd for name, fd in fds.items() if name not in own}
        return cls(
            ring=Ring(fds["events"], ring_size_bytes),
            processes=BpfMap(fds["processes"], key_size=4, value_size=32),
            lost=BpfMap(fds["lost"], key_size=4, value_size=8, per_cpu=True),
            hooks=tuple(name for name in held if name not in MAPS),
            throttle=ThrottleMaps.of(fds) if "throttles" in fds else None,
            _held=held,
        )

    def fds(self) -> dict[str, int]:
        """Return all file descriptors, as `of` takes them."""
        throttle = self.throttle.fds() if self.throttle else {}
        return self.shared() | throttle | self._held

    def shared(self) -> dict[str, int]:
        """Return the descriptors of the maps that other programs may use, for `load_object`."""
        return {"events": self.ring.fd, "processes": self.processes.fd, "lost": self.lost.fd}

    def close(self) -> None:
        """Detach; the ring can still be drained until `free`."""
        for fd in self._held.values():
            os.close(fd)
        self._held = {}

    def free(self) -> None:
        """Unmap the ring and close the maps."""
        self.ring.close()
        self.processes.close()
        self.lost.close()
        if self.throttle:
            self.throttle.close()


async def open_probes(kernel: KernelInfo, flags: list[str], folder: Path) -> Probes:
    """Return the attached probes; raise `ProbeError` with the compiler's or verifier's reason."""
    maps.raise_memlock_limit()
    objects = Objects(kernel.cache, kernel.build, folder)
    refused: list[str] = []
    for hook in credentials_hooks(kernel, flags):
        try:
            loaded = await _load(kernel, flags, folder, objects, hook)
        except (AttachError, VerifierError) as error:
            if hook is None or not _is_about(error, hook):
                raise
            refused.append(str(error))
            continue
        return _own(loaded, ring_size_bytes(flags))
    raise ProbeError(f"probes: {'; '.join(refused)}: or leave enable_process_cred off")


async def _load(
    kernel: KernelInfo,
    flags: list[str],
    folder: Path,
    objects: Objects,
    hook: CredentialsHook | None,
) -> Loaded:
    parts, start_s = base.parts(folder, flags, hook), time.monotonic()
    fresh = False
    while True:
        built = await objects.get_by(
            parts, lambda: base.plan(kernel, folder, flags, hook), fresh=fresh
        )
        try:
            loaded = load_object(built.object)
            break
        except VerifierError as error:
            # Not a matter of rights: the object itself was refused. The cached one may be bad, so
            # compile once more.
            if not built.cached or error.errno == errno.EPERM:
                raise
            log.warning("cached object refused: compiling again", error=str(error))
            fresh = True
    try:
        loaded.attach()
    except BaseException:
        loaded.close()
        raise
    log.info(
        "probes loaded",
        object="cached" if built.cached else "compiled",
        seconds=round(time.monotonic() - start_s, 3),
        credentials=hook.kind.value if hook else "off",
    )
    return loaded


def _is_about(error: AttachError | VerifierError, hook: CredentialsHook) -> bool:
    return error.kind == hook.kind and hook.kind in ("fentry", "kprobe")


def _own(loaded: Loaded, ring_size: int) -> Probes:
    """Return what must stay open as probes; close the rest, which programs and links hold."""
    names = [name for name in (*MAPS, *OPTIONAL_MAPS) if name in loaded.maps]
    fds = {name: loaded.maps.pop(name).fd for name in names}
    fds |= {link.target: link.fd for link in loaded.links.values()}
    loaded.links = {}
    loaded.close()
    return Probes.of(fds, ring_size)
