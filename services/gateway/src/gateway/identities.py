"""Who answers in the name of one node: one collector after the other, or two at once.

A collector that is started again, on this boot of its host or another, answers under a new
identity, and never again under the old one. Where an old one answers again, two hosts share the
name.
"""

from __future__ import annotations

from typing import NamedTuple

GONE_AFTER_S = 11.0  # after two unanswered polls
_MAX_KNOWN = 8


class Identity(NamedTuple):
    """One run of a collector."""

    boot_id: str
    start_ns: int


class Identities:
    """The collectors that answered for one node. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._heard: dict[Identity, float] = {}  # the last one is the newest
        self._returned_at: float | None = None

    def hear(self, identity: Identity, now_s: float) -> bool:
        """Note an answer; return whether it shows for the first time that the name is shared."""
        newest = next(reversed(self._heard), identity)
        returned = identity != newest and identity in self._heard
        first = returned and not self.others(now_s)
        if returned:
            self._returned_at = now_s
        self._heard.pop(identity, None)
        self._heard[identity] = now_s
        while len(self._heard) > _MAX_KNOWN:
            del self._heard[next(iter(self._heard))]
        return first

    def others(self, now_s: float) -> list[Identity]:
        """Return the collectors that answer beside the newest one."""
        before_s = now_s - GONE_AFTER_S
        if self._returned_at is None or self._returned_at < before_s:
            return []
        return [one for one, at_s in self._heard.items() if at_s >= before_s][:-1]
