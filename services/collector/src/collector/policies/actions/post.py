"""Post and NoPost: whether a matched call becomes a record, how often, and with which stacks."""

from __future__ import annotations

from dataclasses import dataclass

from tracingpolicy.actions import ACTIONS, ActionKind
from tracingpolicy.selectors import Action, Selector
from tracingpolicy.values import RateLimitScope

_SCOPES = {
    RateLimitScope.THREAD: "bpf_get_current_pid_tgid()",
    RateLimitScope.PROCESS: "bpf_get_current_pid_tgid() >> 32",
    RateLimitScope.GLOBAL: "0",
}
_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class PostActions:
    """The actions of one selector, as far as they concern its record."""

    actions: tuple[Action, ...]

    @classmethod
    def of(cls, selector: Selector) -> PostActions:
        """Return those at the hook's entry."""
        return cls(selector.actions)

    @property
    def posts(self) -> bool:
        """NoPost anywhere in the list wins."""
        return all(one.kind is not ActionKind.NO_POST for one in self.actions)

    @property
    def last(self) -> int:
        """The number of the action that the event names."""
        return ACTIONS[self.actions[-1].kind].number if self.actions else 0

    @property
    def rate_limits(self) -> tuple[Action, ...]:
        """Actions that limit the rate."""
        return tuple(one for one in self._posts() if one.rate_limit_ms)

    @property
    def kernel_stack(self) -> bool:
        """Whether a kernel stack trace is recorded."""
        return any(one.kernel_stack_trace for one in self._posts())

    @property
    def user_stack(self) -> bool:
        """Whether a user stack trace is recorded."""
        return any(one.user_stack_trace for one in self._posts())

    @property
    def ima_hash(self) -> bool:
        """Whether the file's digest of the integrity subsystem is recorded."""
        return any(one.ima_hash for one in self._posts())

    def rate_limited(self) -> str:
        """Return the C condition that is true where no record may be posted now."""
        calls = []
        for one in self.rate_limits:
            interval = f"{one.rate_limit_ms * _NS_PER_MS}ull"
            calls.append(f"rate_limited(s, {_SCOPES[one.rate_limit_scope]}, {interval})")
        return " || ".join(calls)

    def _posts(self) -> tuple[Action, ...]:
        return tuple(one for one in self.actions if one.kind is ActionKind.POST)
