"""Actions of selectors: what a program does with a call that matched."""

from __future__ import annotations

from collector.policies.actions.post import SelectorActions, sock_call

__all__ = ["SelectorActions", "sock_call"]
