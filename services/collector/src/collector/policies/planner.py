"""Plans and translates policies, with the kernel's types in memory only meanwhile.

Types take some 20 MB, and 0.05 s of CPU to read. A collector whose policies are all kept from an
earlier start never reads them; another one forgets them when no policy has asked for some seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from collector.policies.plan import Plan
from collector.policies.translation import Translation
from tracingpolicy.model import Policy

IDLE_S = 10.0

PlanPolicy = Callable[[Policy], Plan]  # raises `PolicyErrors`


class KernelPlans(NamedTuple):
    """Plans and translates; the only part that knows the kernel's types."""

    plan: PlanPolicy
    # The same by kprobes: some functions cannot have a trampoline (on x86-64 before v6.6 those with
    # more than six arguments), and only attaching shows that.
    by_kprobes: PlanPolicy
    translate: Callable[[Plan], Translation]


@dataclass(slots=True)
class Planner:
    """``read`` reads the kernel's types."""

    read: Callable[[], KernelPlans]
    idle_s: float = IDLE_S
    _made: KernelPlans | None = None
    _busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    _idle: asyncio.TimerHandle | None = None

    async def translated(
        self, policy: Policy, *, by_kprobes: bool = False
    ) -> tuple[Plan, Translation]:
        """Return a policy's plan and its C text; raise `PolicyErrors` or `ServiceError`."""
        async with self._busy:  # types are looked up lazily, by one at a time
            if self._idle is not None:
                self._idle.cancel()
            try:
                return await asyncio.to_thread(self._translated, policy, by_kprobes)
            finally:
                self._idle = asyncio.get_running_loop().call_later(self.idle_s, self.forget)

    def plans(self) -> KernelPlans:
        """Return the planner; read the kernel's types if they are not in memory."""
        if self._made is None:
            self._made = self.read()
        return self._made

    def forget(self) -> None:
        """Free the kernel's types."""
        self._made = None

    def _translated(self, policy: Policy, by_kprobes: bool) -> tuple[Plan, Translation]:
        plans = self.plans()
        plan = plans.by_kprobes(policy) if by_kprobes else plans.plan(policy)
        return plan, plans.translate(plan)
