"""Filters as C conditions: one module for each family, and the list of those on the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collector.policies.selectors import images, process, workloads
from collector.policies.selectors.process import ProcessFilter

if TYPE_CHECKING:
    from collector.policies.arguments.base import Unit
    from tracingpolicy.selectors import Selector

# Functions that return the conditions of a selector on the process; a new filter is one more.
PROCESS_FILTERS = (*workloads.FAMILIES, *process.FAMILIES, *images.FAMILIES)


def process_filters(selector: Selector, unit: Unit) -> list[ProcessFilter]:
    """Return all conditions of a selector that concern the process, not the arguments."""
    return [one for family in PROCESS_FILTERS for one in family(selector, unit)]
