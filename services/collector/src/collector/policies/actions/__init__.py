"""Actions of selectors: what a program does with a call that matched."""

from __future__ import annotations

from collector.policies.actions.post import REPORTING, SelectorActions, count_call, sock_call

__all__ = ["REPORTING", "SelectorActions", "count_call", "sock_call"]
