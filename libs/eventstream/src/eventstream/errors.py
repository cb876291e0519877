"""What can fail while the stream is read."""

from __future__ import annotations


class BusError(Exception):
    """NATS or the stream cannot answer now."""
