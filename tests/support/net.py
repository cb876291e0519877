"""Loopback addresses for the servers of tests."""

from __future__ import annotations

import urllib.request

from embedded.health import free_port

__all__ = ["answers", "free_port"]


def answers(url: str) -> bool:
    """Return whether an HTTP server answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
