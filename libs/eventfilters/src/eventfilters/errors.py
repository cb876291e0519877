"""Errors of filters.

FilterError     a filter is malformed; the text names field and value
└── CostError   the filters need more memory or time than one request may use
"""

from __future__ import annotations


class FilterError(ValueError):
    """A filter is malformed."""


class CostError(FilterError):
    """The filters need more memory or time than one request may use."""
