"""Actions of selectors: what a program does with a call that matched."""

from __future__ import annotations

from collector.policies.actions.post import PostActions

__all__ = ["PostActions"]
