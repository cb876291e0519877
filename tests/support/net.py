"""Loopback addresses for the servers of tests."""

from __future__ import annotations

import socket
import urllib.request


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port of ``address`` that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Return whether an HTTP server answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
