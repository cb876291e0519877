"""Probes: taken over from the previous collector, or loaded and attached."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import structlog

from collector import selfcheck
from collector.bpf import probes
from collector.bpf.kernel import KernelInfo
from collector.bpf.pins import Pins, build_id
from collector.bpf.probes import Probes
from collector.recovery.replay import Recovered
from collector.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Attached:
    """The probes and since when they have been attached."""

    probes: Probes
    pins: Pins
    since_ns: int  # calendar clock
    taken_over: bool  # the ring continues where the previous collector stopped reading
    early: list[bytes] = field(default_factory=list)  # records that were read already


async def attach(settings: Settings, kernel: KernelInfo, recovered: Recovered | None) -> Attached:
    """Return the attached probes; raise `ProbeError` or `KernelError` if that is impossible."""
    folder = probes.bpf_folder()
    flags = _flags(settings, kernel)
    pins = Pins(settings.pin_dir, settings.node_name, build_id(folder, flags))
    pins.lock(make=settings.keep_probes != "never")
    kept = _take_over(settings, pins, recovered, flags)
    if kept is not None and recovered is not None:
        return Attached(kept, pins, recovered.run.probes_start_ns, taken_over=True)
    if left := pins.remove():
        log.info("kept probes detached", folders=len(left))
    opened = await probes.open_probes(kernel, flags, folder)
    since_ns = time.time_ns()
    early: list[bytes] = []
    if not kernel.proven:
        early = selfcheck.verify(opened.ring, settings.btf, settings.cache_dir)
    if settings.keep_probes != "never":
        pins.keep(opened, since_ns)
    return Attached(opened, pins, since_ns, taken_over=False, early=early)


def _flags(settings: Settings, kernel: KernelInfo) -> list[str]:
    parts = {
        "CRED": settings.enable_process_cred,
        "NS": settings.enable_process_ns,
        "ENVS": settings.enable_process_environment_variables,
    }
    return probes.compiler_flags(
        kernel,
        ring_size_bytes=1 << (settings.ring_size_bytes - 1).bit_length(),
        process_map_entries=settings.execve_map_entries,
        enable=tuple(name for name, enabled in parts.items() if enabled),
        throttle=settings.cgroup_rate,
    )


def _take_over(
    settings: Settings, pins: Pins, recovered: Recovered | None, flags: list[str]
) -> Probes | None:
    """Return the previous collector's probes, if its journal reaches up to their ring."""
    if settings.keep_probes == "never" or recovered is None:
        return None
    kept = pins.take(recovered.run.probes_start_ns, probes.ring_size_bytes(flags))
    if kept is None:
        return None
    try:
        if recovered.complete:
            kept.ring.seek(recovered.ring_position)
            return kept
        reason = "the journal does not reach up to their ring"
    except ValueError as error:
        reason = str(error)
    log.warning("kept probes not used", reason=reason)
    kept.close()
    kept.free()
    return None
