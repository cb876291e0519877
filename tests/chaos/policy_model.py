"""What a policy may be after changes of which some ended without an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from tetra.v1.policies_pb2 import PolicySpec, StoredPolicy


class Wanted(NamedTuple):
    """A revision: which of the documents, and whether it is on."""

    variant: str
    enabled: bool = True


class Policy(NamedTuple):
    """What is current, and what runs as canary; None: nothing."""

    current: Wanted | None = None
    canary: Wanted | None = None

    def after(self, action: str, variant: str) -> Policy | None:
        """Return what a change makes of it, or None where the change is refused."""
        if self.canary and action in ("add", "replace", "canary", "enable"):
            return None
        return _ACTIONS[action](self, variant)


def _add(policy: Policy, variant: str) -> Policy | None:
    return None if policy.current else Policy(Wanted(variant))


def _enable(policy: Policy, _variant: str) -> Policy | None:
    if policy.current is None or policy.current.enabled:
        return None
    return Policy(Wanted(policy.current.variant))


def _disable(policy: Policy, _variant: str) -> Policy | None:
    spec = policy.current or policy.canary
    return Policy(Wanted(spec.variant, False)) if spec and spec.enabled else None


_ACTIONS: dict[str, Callable[[Policy, str], Policy | None]] = {
    "add": _add,
    "replace": lambda _policy, variant: Policy(Wanted(variant)),
    "canary": lambda policy, variant: Policy(policy.current, Wanted(variant)),
    "promote": lambda policy, _variant: Policy(policy.canary) if policy.canary else None,
    "abort": lambda policy, _variant: Policy(policy.current) if policy.canary else None,
    "enable": _enable,
    "disable": _disable,
    "delete": lambda policy, _variant: Policy() if policy != Policy() else None,
}
ACTIONS = tuple(_ACTIONS)


@dataclass
class Possible:
    """All that one policy may be: one thing, unless a change ended without an answer."""

    policies: set[Policy] = field(default_factory=lambda: {Policy()})

    def fitting(self) -> list[str]:
        """Return the changes that should not be refused."""
        return [action for action in ACTIONS if self._after(action, "")]

    def done(self, action: str, variant: str) -> bool:
        """Note a change that was carried out; return whether it could be."""
        after = self._after(action, variant)
        if after:
            self.policies = after
        return bool(after)

    def maybe_done(self, action: str, variant: str) -> None:
        """Note a change whose outcome is unknown."""
        self.policies |= self._after(action, variant)

    def _after(self, action: str, variant: str) -> set[Policy]:
        made: Iterable[Policy | None] = (p.after(action, variant) for p in self.policies)
        return {one for one in made if one is not None}


def policy_of(stored: StoredPolicy, variant_of: Callable[[PolicySpec], str]) -> Policy:
    """Return what the bucket has of a policy."""
    current = canary = None
    if stored.HasField("current") and not stored.current.deleted:
        current = Wanted(variant_of(stored.current), stored.current.enabled)
    if stored.HasField("candidate"):
        canary = Wanted(variant_of(stored.candidate.spec))
    return Policy(current, canary)
