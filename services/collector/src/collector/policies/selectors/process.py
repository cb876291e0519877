"""Filters on the current process: one function for each key of a selector.

matchPIDs, matchNamespaces, matchCapabilities, matchUsers. Each returns conditions; lines that a
condition needs before it are shared between the selectors of a hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from collector.policies.ctext import negated
from collector.policies.selectors import numbers
from tracingpolicy.operators import Operator
from tracingpolicy.selectors import (
    MatchCapabilities,
    MatchNamespaces,
    MatchPids,
    MatchUsers,
    Selector,
)
from tracingpolicy.values import CapabilitySet, Namespace, UserId

if TYPE_CHECKING:
    from collector.policies.arguments.base import Unit

_HEADERS = ("process.h",)


@dataclass(frozen=True, slots=True)
class ProcessFilter:
    """A condition, and lines before it that filters may share: each is in the text once."""

    condition: str
    what: str  # for the comment: the policy's words
    prepare: tuple[str, ...] = ()
    headers: tuple[str, ...] = _HEADERS
    late: bool = False  # changes state where it matches: evaluated last


def _signed_by(operator: Operator, found: str) -> str:
    return found if operator is Operator.IN else negated(found)


# --- matchPIDs

_TGID = ("u32 tgid = current_tgid();",)
_NAMESPACE_TGID = ("u32 namespace_tgid = current_namespace_tgid();",)
_IMAGE = ("struct image *image = find_image(current_tgid());",)


def pids(selector: Selector, unit: Unit) -> list[ProcessFilter]:
    """Return the conditions of matchPIDs."""
    return [_pids(one, unit) for one in selector.pids]


def _pids(one: MatchPids, unit: Unit) -> ProcessFilter:
    what = f"matchPIDs: {one.operator.value} {', '.join(map(str, one.values))}"
    name = "namespace_tgid" if one.is_namespace_pid else "tgid"
    prepare = _NAMESPACE_TGID if one.is_namespace_pid else _TGID
    own = numbers.contains(name, numbers.intervals(one.values), is_signed=False, unit=unit)
    if not one.follow_forks:
        return ProcessFilter(_signed_by(one.operator, own), what, prepare)
    unit.use_images()
    walk = _ancestor_function(one, unit)
    found = f"({own} || {walk}(image))"
    condition = _signed_by(one.operator, found)
    if one.is_namespace_pid:  # processes of the host match neither In nor NotIn
        condition = f"(namespace_tgid && {condition})"
    return ProcessFilter(condition, what + " followForks", (*prepare, *_IMAGE))


def _ancestor_function(one: MatchPids, unit: Unit) -> str:
    """Add a function that looks at the ancestors; return its name."""
    name = unit.unique("ancestor_matches")
    # By pid an ancestor need not be known itself: its child knows the number.
    pid = "image->nspid" if one.is_namespace_pid else "image->parent_pid"
    step = "\t\timage = parent_image(image);\n\t\tif (!image)\n\t\t\tbreak;\n"
    inside = numbers.contains("pid", numbers.intervals(one.values), is_signed=False, unit=unit)
    compare = f"\t\tu32 pid = {pid};\n\n\t\tif ({inside})\n\t\t\treturn true;\n"
    body = step + compare if one.is_namespace_pid else compare + step
    unit.functions.append(
        f"static __always_inline bool {name}(struct image *image)\n{{\n"
        "\tif (!image)\n\t\treturn false;\n"
        "#pragma unroll\n"
        "\tfor (int i = 0; i < ANCESTORS_MAX; i++) {\n"
        f"{body}"
        "\t}\n\treturn false;\n}"
    )
    return name


# --- matchNamespaces

_NAMESPACES = {
    Namespace.UTS: "namespace_of(OFFSET_nsproxy_uts, OFFSET_uts_namespace_inum)",
    Namespace.IPC: "namespace_of(OFFSET_nsproxy_ipc, OFFSET_ipc_namespace_inum)",
    Namespace.MNT: "namespace_of(OFFSET_nsproxy_mnt, OFFSET_mnt_namespace_inum)",
    Namespace.PID: "pid_namespace()",
    Namespace.PID_FOR_CHILDREN: (
        "namespace_of(OFFSET_nsproxy_pid_for_children, OFFSET_pid_namespace_inum)"
    ),
    Namespace.NET: "namespace_of(OFFSET_nsproxy_net, OFFSET_net_inum)",
    Namespace.TIME: "namespace_of(OFFSET_nsproxy_time, OFFSET_time_namespace_inum)",
    Namespace.TIME_FOR_CHILDREN: (
        "namespace_of(OFFSET_nsproxy_time_for_children, OFFSET_time_namespace_inum)"
    ),
    Namespace.CGROUP: "namespace_of(OFFSET_nsproxy_cgroup, OFFSET_cgroup_namespace_inum)",
    Namespace.USER: "user_namespace()",
}


def namespaces(selector: Selector, unit: Unit) -> list[ProcessFilter]:
    """Return the conditions of matchNamespaces."""
    return [_namespace(one, unit) for one in selector.namespaces]


def _namespace(one: MatchNamespaces, unit: Unit) -> ProcessFilter:
    name = f"{one.namespace.name.lower()}_ns"
    values = set(one.values)
    if one.host:
        values.add(unit.host_namespaces.get(one.namespace, 0))  # 0: this kernel has none such
    found = numbers.contains(name, numbers.intervals(values), is_signed=False, unit=unit)
    shown = [*map(str, one.values), *(["host_ns"] if one.host else [])]
    what = f"matchNamespaces: {one.namespace.value} {one.operator.value} {', '.join(shown)}"
    prepare = (f"u32 {name} = {_NAMESPACES[one.namespace]};",)
    return ProcessFilter(_signed_by(one.operator, found), what, prepare)


# --- matchCapabilities

CAPABILITY_SETS = {
    CapabilitySet.EFFECTIVE: "OFFSET_cred_effective",
    CapabilitySet.INHERITABLE: "OFFSET_cred_inheritable",
    CapabilitySet.PERMITTED: "OFFSET_cred_permitted",
}


def capabilities(selector: Selector, unit: Unit) -> list[ProcessFilter]:
    """Return the conditions of matchCapabilities."""
    return [_capabilities(one) for one in selector.capabilities]


def _capabilities(one: MatchCapabilities) -> ProcessFilter:
    name = f"{one.set.name.lower()}_capabilities"
    prepare = (f"u64 {name} = KERNEL(u64, current_cred() + {CAPABILITY_SETS[one.set]});",)
    condition = _signed_by(one.operator, f"({name} & {one.mask:#x}ull) != 0")
    if one.is_namespace_capability:  # tasks of the host match neither In nor NotIn
        condition = f"(in_user_namespace() && {condition})"
    what = f"matchCapabilities: {one.set.value} {one.operator.value} {one.mask:#x}"
    return ProcessFilter(condition, what, prepare)


# --- matchUsers

_USERS = {
    UserId.UID: "KERNEL(u32, current_cred() + OFFSET_cred_uid)",
    UserId.EUID: "KERNEL(u32, current_cred() + OFFSET_cred_euid)",
    UserId.AUID: "login_uid()",
}


def users(selector: Selector, unit: Unit) -> list[ProcessFilter]:
    """Return the conditions of matchUsers."""
    return [_user(one, unit) for one in selector.users]


def _user(one: MatchUsers, unit: Unit) -> ProcessFilter:
    name = one.type.value
    found = numbers.contains(name, numbers.intervals(one.values), is_signed=False, unit=unit)
    what = f"matchUsers: {one.type.value} {one.operator.value} {_shown(one.values)}"
    return ProcessFilter(
        _signed_by(one.operator, found), what, (f"u32 {name} = {_USERS[one.type]};",)
    )


def _shown(values: Iterable[object]) -> str:
    return ", ".join(
        f"{value.low}:{value.high}" if hasattr(value, "low") else str(value)  # type: ignore[attr-defined]
        for value in values
    )


Family = Callable[[Selector, "Unit"], list[ProcessFilter]]
FAMILIES: tuple[Family, ...] = (pids, namespaces, capabilities, users)
