"""Parts of documents that this collector does not support yet: refused by name, never ignored.

A policy whose filter is ignored would report, or stop, calls that it must not: so every filter
without a translation is a mistake of the document until it has one.
"""

from __future__ import annotations

from collector.policies.check import Checker, path_of
from collector.policies.check_requests import why_refused
from collector.policies.selectors import PROCESS_FILTERS
from tracingpolicy.actions import ActionKind
from tracingpolicy.model import Hook
from tracingpolicy.selectors import Action, Selector

# Actions that cannot be carried out when the call has returned.
_ENTRY_ONLY = (ActionKind.OVERRIDE, ActionKind.SET)
_REQUESTS = (ActionKind.GET_URL, ActionKind.DNS_LOOKUP)
# Field of `Selector` -> key of documents, for filters on the process.
PROCESS_KEYS = {
    "pids": "matchPIDs",
    "binaries": "matchBinaries",
    "parent_binaries": "matchParentBinaries",
    "namespaces": "matchNamespaces",
    "namespace_changes": "matchNamespaceChanges",
    "capabilities": "matchCapabilities",
    "capability_changes": "matchCapabilityChanges",
    "workloads": "matchWorkloads",
    "users": "matchUsers",
    "containers": "matchContainers",
}
_NOT_YET = "is not supported yet"


def filters_not_yet() -> dict[str, str]:
    """Return the filters on the process that the translator has no condition for."""
    translated = {family.__name__ for family in PROCESS_FILTERS}
    return {field: key for field, key in PROCESS_KEYS.items() if field not in translated}


def check_hook(checker: Checker, hook: Hook) -> None:
    """Refuse filters and actions of a hook."""
    not_yet = filters_not_yet()
    for number, selector in enumerate(hook.selectors):
        path = f"{path_of(hook)}.selectors[{number}]"
        for field, key in not_yet.items():
            if getattr(selector, field):
                checker.fail(selector.place, path, f"{key} {_NOT_YET}", "", key)
        for section, actions in _sections(selector):
            for position, action in enumerate(actions):
                _check_action(checker, f"{path}.{section}[{position}]", action)


def _sections(selector: Selector) -> tuple[tuple[str, tuple[Action, ...]], ...]:
    return ("matchActions", selector.actions), ("matchReturnActions", selector.return_actions)


def _check_action(checker: Checker, path: str, action: Action) -> None:
    if action.kind in _ENTRY_ONLY and ".matchReturnActions" in path:
        message = f"{action.kind.value}: the call has returned already"
        checker.fail(action.place, path, message, "matchActions", "action")
    if action.kind in _REQUESTS:
        refused = why_refused(action, checker.host.request_hosts)
        if refused is not None:
            key, message, allowed = refused
            checker.fail(action.place, path, message, allowed, key)
