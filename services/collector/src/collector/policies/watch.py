"""What changes while policies that act are loaded: who is spared, and modes that the kernel set."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from collector.policies.enforcement import Enforcement
from collector.policies.entry import Entry
from collector.policies.manager import PolicyManager
from tracingpolicy.values import Mode

INTERVAL_S = 1.0

log = structlog.get_logger()


@dataclass(slots=True)
class EnforcementWatch:
    """Looks once a second; costs nothing as long as no policy acts."""

    enforcement: Enforcement
    manager: PolicyManager

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self.look()
            except Exception:  # a fault here must not end the base events
                log.exception("enforcement not watched")

    async def look(self) -> None:
        """Spare what runs now, and take over the modes that limits have set."""
        if not self.enforcement.active:
            return
        await asyncio.to_thread(self.enforcement.refresh)
        fell_back = [entry for entry in self.manager.entries if _fell_back(entry)]
        for entry in fell_back:
            entry.mode = Mode.MONITOR
            entry.error = (
                f"switched to mode monitor: more than {self.enforcement.signals_max} signals in a "
                "minute"
            )
            log.warning("policy fell back", policy=str(entry.identity), error=entry.error)
        if fell_back:
            self.manager.on_change()


def _fell_back(entry: Entry) -> bool:
    from collector.policies.backend import KernelInstallation  # there since the first policy

    one = entry.installation
    return (
        isinstance(one, KernelInstallation)
        and entry.mode is Mode.ENFORCE
        and one.mode is Mode.MONITOR
    )
