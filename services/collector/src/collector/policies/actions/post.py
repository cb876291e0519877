"""The actions of a selector as C: Post and NoPost, TrackSock and UntrackSock."""

from __future__ import annotations

from dataclasses import dataclass

from tracingpolicy.actions import ACTIONS, OWN_ACTIONS, ActionKind
from tracingpolicy.selectors import Action, Selector
from tracingpolicy.values import RateLimitScope

_SCOPES = {
    RateLimitScope.THREAD: "bpf_get_current_pid_tgid()",
    RateLimitScope.PROCESS: "bpf_get_current_pid_tgid() >> 32",
    RateLimitScope.GLOBAL: "0",
}
_SOCKETS = {ActionKind.TRACK_SOCK: "track_sock", ActionKind.UNTRACK_SOCK: "untrack_sock"}
_COUNTS = {ActionKind.COUNT_SENT: "{0}, {1}, 0", ActionKind.COUNT_RECEIVED: "{0}, 0, {1}"}
_NS_PER_MS = 1_000_000
REPORTING = frozenset({ActionKind.POST, ActionKind.NO_POST})
DONE_HERE = frozenset({ActionKind.POST, ActionKind.NO_POST, *_SOCKETS, *_COUNTS})


@dataclass(frozen=True, slots=True)
class SelectorActions:
    """matchActions or matchReturnActions of one selector."""

    actions: tuple[Action, ...]

    @classmethod
    def at_entry(cls, selector: Selector) -> SelectorActions:
        """Return those of matchActions."""
        return cls(selector.actions)

    @classmethod
    def at_return(cls, selector: Selector) -> SelectorActions:
        """Return those of matchReturnActions."""
        return cls(selector.return_actions)

    @property
    def posts(self) -> bool:
        """NoPost anywhere in the list wins."""
        return all(one.kind is not ActionKind.NO_POST for one in self.actions)

    @property
    def last(self) -> int:
        """The number of the action that the event names, which is one of the API."""
        named = [one.kind for one in self.actions if one.kind not in OWN_ACTIONS]
        return ACTIONS[named[-1]].number if named else 0

    @property
    def kernel_stack(self) -> bool:
        """Whether a kernel stack trace is recorded."""
        return any(one.kernel_stack_trace for one in self._of(ActionKind.POST))

    @property
    def user_stack(self) -> bool:
        """Whether a user stack trace is recorded."""
        return any(one.user_stack_trace for one in self._of(ActionKind.POST))

    @property
    def ima_hash(self) -> bool:
        """Whether the file's digest of the integrity subsystem is recorded."""
        return any(one.ima_hash for one in self._of(ActionKind.POST))

    @property
    def tracks(self) -> tuple[Action, ...]:
        """Actions on the owner of a socket."""
        return self._of(*_SOCKETS)

    @property
    def counts(self) -> tuple[Action, ...]:
        """Actions that count bytes of a socket."""
        return self._of(*_COUNTS)

    def rate_limited(self) -> str:
        """Return the C condition that is true where no record may be posted now; "" for none."""
        return " || ".join(
            f"rate_limited(s, {_SCOPES[one.rate_limit_scope]}, {one.rate_limit_ms * _NS_PER_MS}ull)"
            for one in self._of(ActionKind.POST)
            if one.rate_limit_ms
        )

    def _of(self, *kinds: ActionKind) -> tuple[Action, ...]:
        return tuple(one for one in self.actions if one.kind in kinds)


def sock_call(kind: ActionKind, sock: str) -> str:
    """Return the C statement that tracks or forgets the socket at an address."""
    return f"{_SOCKETS[kind]}({sock});"


def count_call(kind: ActionKind, sock: str, size: str) -> str:
    """Return the C statement that adds bytes to those of the socket at an address."""
    return f"count_bytes({_COUNTS[kind].format(sock, size)});"
