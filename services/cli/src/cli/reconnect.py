"""When a broken stream is retried, and when it is abandoned."""

from __future__ import annotations

import time
from dataclasses import dataclass

from chassis.backoff import Backoff

_FIRST_WAIT_S = 0.1


@dataclass(frozen=True, slots=True)
class ResumePolicy:
    """What happens when a stream breaks."""

    # Reconnect without limit, also after a clean end and to a server without cursors.
    always: bool = False
    # Longest wait between two attempts.
    wait_s: float = 2.0
    # How long to retry while a cursor guarantees that no event is missed; 0: not at all.
    give_up_s: float = 60.0


DEFAULT_POLICY = ResumePolicy()


class Attempts:
    """The attempts of one stream to reach a server."""

    def __init__(self, policy: ResumePolicy, addresses: int) -> None:
        """``addresses``: how many servers are tried before the first failure counts."""
        self._policy = policy
        self._addresses = addresses
        # A server has answered once: from then on a failure is an interruption.
        self._was_connected = False
        self._failing_since: float | None = None
        self._waits = Backoff(_FIRST_WAIT_S, policy.wait_s)
        self._failed = 0

    def answered(self) -> bool:
        """Note a response; return whether it ends an interruption."""
        was_interrupted = self._failing_since is not None and self._is_interruption
        self._was_connected, self._failing_since = True, None
        self._waits.reset()
        self._failed = 0
        return was_interrupted

    def failed(self) -> bool:
        """Note a failure; return whether an interruption begins with it."""
        self._failed += 1
        if self._failing_since is not None:
            return False
        self._failing_since = time.monotonic()
        return self._is_interruption

    def is_given_up(self, *, resumable: bool) -> bool:
        """Return whether the last failure is final; ``resumable``: nothing would be missed."""
        if self._policy.always:
            return False
        if not self._was_connected:
            return self._failed >= self._addresses
        lost_s = time.monotonic() - (self._failing_since or time.monotonic())
        return not resumable or lost_s >= self._policy.give_up_s

    def wait(self) -> None:
        """Wait before the next attempt; the first round through the addresses does not wait."""
        if not self._is_interruption:
            return
        time.sleep(self._waits.next_s())

    @property
    def _is_interruption(self) -> bool:
        return self._was_connected or self._policy.always
