"""Errors of reading the stream, and of requests for it."""

from __future__ import annotations


class BusError(Exception):
    """NATS or the stream cannot answer now."""


class AggregationError(Exception):
    """The options of an aggregation are invalid."""
