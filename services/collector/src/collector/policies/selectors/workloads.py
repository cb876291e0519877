"""Filters on containers and pods: the policy's own selectors, matchWorkloads, matchContainers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collector.policies.ctext import any_of
from collector.policies.groups import HostProcesses, Workload
from collector.policies.selectors.process import ProcessFilter
from tracingpolicy.model import Policy, PolicyKind
from tracingpolicy.operators import OPERATORS
from tracingpolicy.selectors import LabelSelector, MatchContainers

if TYPE_CHECKING:
    from collector.policies.arguments.base import Unit
    from tracingpolicy.selectors import Selector

_HEADERS = ("workloads.h",)
_PREPARE = ("u64 groups = current_groups();",)


def of_policy(policy: Policy, unit: Unit) -> ProcessFilter | None:
    """Return the condition of the policy's own selectors; None where it is for everything."""
    namespace = policy.namespace if policy.kind is PolicyKind.NAMESPACED else ""
    condition = _workload(
        policy.pod_selector, policy.container_selector, policy.host_selector, namespace, unit
    )
    if condition is None:
        return None
    return ProcessFilter(condition, "podSelector, containerSelector", _PREPARE, _HEADERS)


def _workload(
    pods: LabelSelector | None,
    containers: LabelSelector | None,
    host: bool,
    namespace: str,
    unit: Unit,
) -> str | None:
    """Return the condition, by the table of the three selectors; None for everything."""
    all_of_them = pods == containers == LabelSelector() and host
    none_of_them = pods is None and containers is None and not host
    if not namespace and (all_of_them or none_of_them):
        return None
    tests = []
    if pods is not None or containers is not None or namespace:
        tests.append(f"(groups & {unit.group_mask(Workload(pods, containers, namespace))})")
    if host:
        unit.group_mask(HostProcesses())  # so that pods have their bit
        tests.append("!(groups & GROUP_POD)")
    return any_of(tests)


def workloads(selector: Selector, unit: Unit) -> list[ProcessFilter]:
    """Return the conditions of matchWorkloads."""
    found = []
    for one in selector.workloads:
        condition = _workload(one.pod_selector, one.container_selector, one.host_selector, "", unit)
        if condition is not None:
            found.append(ProcessFilter(condition, "matchWorkloads", _PREPARE, _HEADERS))
    return found


def containers(selector: Selector, unit: Unit) -> list[ProcessFilter]:
    """Return the conditions of matchContainers."""
    return [_containers(one, unit) for one in selector.containers]


def _containers(one: MatchContainers, unit: Unit) -> ProcessFilter:
    positive = OPERATORS[one.operator].opposite or one.operator
    listed = MatchContainers(what=one.what, operator=positive, values=one.values)
    mask = unit.group_mask(listed)
    what = f"matchContainers: {one.what.value} {one.operator.value} {', '.join(one.values)}"
    condition = f"(groups & {mask})"
    if positive is not one.operator:
        # A container whose name is not known yet may be one of those.
        condition = f"!(groups & ({mask} | GROUP_UNKNOWN))"
    return ProcessFilter(condition, what, _PREPARE, _HEADERS)


FAMILIES = (workloads, containers)
