"""What changes while enforcing policies are loaded: spared processes, switched modes."""

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
    """Checks once a second; does nothing while no policy enforces."""

    enforcement: Enforcement
    manager: PolicyManager

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self.look()
            except Exception:  # an error here must not end the base events
                log.exception("enforcement not watched")

    async def look(self) -> None:
        """Spare the current processes, and adopt the modes that limits have switched."""
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
            log.warning(
                "policy fell back to monitor mode", policy=str(entry.identity), error=entry.error
            )
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
