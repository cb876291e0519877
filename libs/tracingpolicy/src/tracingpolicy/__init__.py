"""Tracing policies: the document, its typed form, and every mistake with its position."""

from tracingpolicy.position import Mistake, PolicyErrors, Position
from tracingpolicy.reading.policy import parse, read

__all__ = ["Mistake", "PolicyErrors", "Position", "parse", "read"]
