"""What can fail while the stream is read, and what a request for it may have wrong."""

from __future__ import annotations


class BusError(Exception):
    """NATS or the stream cannot answer now."""


class AggregationError(Exception):
    """The options of an aggregation make no sense."""
