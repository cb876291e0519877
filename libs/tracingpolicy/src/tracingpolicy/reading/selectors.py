"""Selectors and macros."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tracingpolicy.model import HookKind
from tracingpolicy.reading.actions import read_action
from tracingpolicy.reading.context import HookContext, PolicyContext
from tracingpolicy.reading.document import Kind, Node
from tracingpolicy.reading.fields import Fields
from tracingpolicy.reading.filters import read_filter
from tracingpolicy.reading.processes import (
    read_binaries,
    read_capabilities,
    read_containers,
    read_namespace_changes,
    read_namespaces,
    read_pids,
    read_users,
    read_workloads,
)
from tracingpolicy.reading.report import Report, quoted, suggestion
from tracingpolicy.selectors import MatchWorkloads, Selector

T = TypeVar("T")

OWN_FILTERS = ("matchUsers", "matchContainers")
FILTERS = (
    "matchPIDs",
    "matchBinaries",
    "matchParentBinaries",
    "matchNamespaces",
    "matchNamespaceChanges",
    "matchCapabilities",
    "matchCapabilityChanges",
    "matchWorkloads",
    "matchArgs",
    "matchData",
    "matchReturnArgs",
    "matchActions",
    "matchReturnActions",
    *OWN_FILTERS,
)
_KEYS = (*FILTERS, "label", "macros")
_RETURN = ("matchReturnArgs", "matchReturnActions")


def read_selector(report: Report, node: Node, path: str, hook: HookContext) -> Selector | None:
    """Return a selector with its macros expanded."""
    fields = Fields(report, node, path, _KEYS)
    _expand(fields, hook.policy)
    _check_return(fields, hook)
    return _selector(fields, hook.policy, hook)


def check_macros(report: Report, policy: PolicyContext, path: str) -> None:
    """Check macros; the filters of one that no selector names are checked without a hook."""
    for name, node in (policy.macros or {}).items():
        fields = Fields(report, node, f"{path}.{name}", _KEYS)
        if fields.has("macros"):
            fields.fail("a macro cannot use other macros", "macros")
        if name not in policy.used_macros:
            _selector(fields, policy, None)


def _expand(fields: Fields, policy: PolicyContext) -> None:
    """Take over the filters of macros; two of one kind contradict each other."""
    origin = {name: "the selector" for name in fields.entries if name in FILTERS}
    for name, node in fields.texts("macros"):
        macro = (policy.macros or {}).get(name)
        if macro is None:
            known = policy.macros or {}
            message = f"{fields.path}.macros: there is no macro {quoted(name)}"
            allowed = ", ".join(known) or "names in spec.selectorsMacros, which is empty"
            fields.report.add(node.position, message + suggestion(name, known), allowed)
            continue
        policy.used_macros.add(name)
        for key, (_, value) in macro.entries.items():
            if key == "label":
                fields.entries.setdefault(key, value)
            elif key in origin:
                message = f"{fields.path}.macros: {key} is in macro {name} and in {origin[key]}"
                fields.report.add(node.position, message)
            elif key in FILTERS and value.kind is not Kind.NULL:
                fields.entries[key] = value
                origin[key] = f"macro {name}"


def _check_return(fields: Fields, hook: HookContext) -> None:
    for key in _RETURN:
        if not fields.has(key):
            continue
        if hook.kind in (HookKind.TRACEPOINT, HookKind.USDT, HookKind.LSM):
            fields.fail(f"{hook.kind.value} have no return", key)
            del fields.entries[key]
        elif not hook.returns:
            fields.doubt("without return: true it has no effect", key)
            del fields.entries[key]


def _workloads(fields: Fields) -> tuple[MatchWorkloads, ...]:
    """Return matchWorkloads: a list, or its only element."""
    node, report = fields.entries.get("matchWorkloads"), fields.report
    if node is not None and node.kind is Kind.MAPPING:
        return (read_workloads(report, node, f"{fields.path}.matchWorkloads"),)
    return fields.each("matchWorkloads", lambda node, path: read_workloads(report, node, path))


def _selector(fields: Fields, policy: PolicyContext, hook: HookContext | None) -> Selector:
    report = fields.report

    def each(key: str, read: Callable[[Report, Node, str], T | None]) -> tuple[T, ...]:
        return fields.each(key, lambda node, path: read(report, node, path))

    for key in OWN_FILTERS:
        if fields.has(key) and not policy.own_api:
            message = f"{key} is not in this API version: write apiVersion: tetra.io/v1"
            fields.fail(message, key)

    return Selector(
        pids=each("matchPIDs", read_pids),
        binaries=each("matchBinaries", read_binaries),
        parent_binaries=each("matchParentBinaries", read_binaries),
        namespaces=each("matchNamespaces", read_namespaces),
        namespace_changes=each("matchNamespaceChanges", read_namespace_changes),
        capabilities=each("matchCapabilities", read_capabilities),
        capability_changes=each("matchCapabilityChanges", read_capabilities),
        workloads=_workloads(fields),
        users=each("matchUsers", read_users),
        containers=each("matchContainers", read_containers),
        args=each("matchArgs", lambda r, n, p: read_filter(r, n, p, "matchArgs", hook)),
        data=each("matchData", lambda r, n, p: read_filter(r, n, p, "matchData", hook)),
        return_args=each(
            "matchReturnArgs", lambda r, n, p: read_filter(r, n, p, "matchReturnArgs", hook)
        ),
        actions=each("matchActions", lambda r, n, p: read_action(r, n, p, hook)),
        return_actions=each("matchReturnActions", lambda r, n, p: read_action(r, n, p, hook)),
        label=fields.text("label"),
        place=fields.place(),
    )
