"""Filters on what `struct image` holds: binaries of the process, its parent, its ancestors, and
changes of namespaces and capabilities since exec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from collector.policies.ctext import negated, quoted
from collector.policies.images import BinaryList
from collector.policies.selectors.process import CAPABILITY_SETS, ProcessFilter
from tracingpolicy.operators import OPERATORS, Operator
from tracingpolicy.selectors import MatchBinaries, MatchCapabilities, MatchNamespaceChanges
from tracingpolicy.values import CapabilitySet, Namespace

if TYPE_CHECKING:
    from collector.policies.arguments.base import Unit
    from tracingpolicy.selectors import Selector

IMAGE = ("struct image *image = find_image(current_tgid());",)
_HEADERS = ("image.h",)
_NAMESPACES = tuple(Namespace)  # in the order of enum image_namespace
_SETS = (CapabilitySet.EFFECTIVE, CapabilitySet.INHERITABLE, CapabilitySet.PERMITTED)


def binaries(selector: Selector, unit: Unit) -> list[ProcessFilter]:
    """Return the conditions of matchBinaries."""
    return [_binaries(one, "matchBinaries", unit) for one in selector.binaries if one.values]


def parent_binaries(selector: Selector, unit: Unit) -> list[ProcessFilter]:
    """Return the conditions of matchParentBinaries."""
    return [_parent(one, unit) for one in selector.parent_binaries if one.values]


def _mask(one: MatchBinaries, unit: Unit) -> tuple[str, bool]:
    """Return the list's bit, and whether the operator is a negative one."""
    positive = OPERATORS[one.operator].opposite or one.operator
    unit.use_images()
    return unit.list_mask(BinaryList(positive, one.values)), positive is not one.operator


def _binaries(one: MatchBinaries, key: str, unit: Unit) -> ProcessFilter:
    mask, is_not = _mask(one, unit)
    field = "lineage" if one.follow_children else "binaries"
    found = f"({field} & {mask})"
    if is_not:
        found = negated(found)
    prepare = (
        f"u64 {field} = 0;",
        f"bool {field}_known = lists_of_process(LISTS_{field.upper()}, &{field});",
    )
    # A process that is not known, or whose path is not, matches neither In nor NotIn.
    condition = f"({field}_known && {found})"
    return ProcessFilter(condition, _what(key, one), prepare, _HEADERS)


def _parent(one: MatchBinaries, unit: Unit) -> ProcessFilter:
    mask, is_not = _mask(one, unit)
    field = "parent_lineage" if one.follow_children else "parent_binaries"
    found = f"(image->{field} & {mask})"
    if is_not:
        found = negated(found)
    # With an unknown parent the filter passes, as in Tetragon.
    condition = f"(!image || !(image->flags & IMAGE_PARENT_KNOWN) || {found})"
    return ProcessFilter(condition, _what("matchParentBinaries", one), IMAGE, _HEADERS)


def _what(key: str, one: MatchBinaries) -> str:
    suffix = " followChildren" if one.follow_children else ""
    return f"{key}: {one.operator.value} {', '.join(map(quoted, one.values))}{suffix}"


def namespace_changes(selector: Selector, unit: Unit) -> list[ProcessFilter]:
    """Return the conditions of matchNamespaceChanges."""
    return [_namespaces(one, unit) for one in selector.namespace_changes]


def _namespaces(one: MatchNamespaceChanges, unit: Unit) -> ProcessFilter:
    unit.use_images()
    listed = sum(1 << _NAMESPACES.index(value) for value in one.values)
    if one.operator is not Operator.IN:
        listed = ~listed & (1 << len(_NAMESPACES)) - 1
    names = ", ".join(value.value for value in one.values)
    return ProcessFilter(
        f"((changed_namespaces(image) & {listed:#x}) && record_namespaces(image))",
        f"matchNamespaceChanges: {one.operator.value} {names}",
        IMAGE, _HEADERS, late=True,
    )  # fmt: skip


def capability_changes(selector: Selector, unit: Unit) -> list[ProcessFilter]:
    """Return the conditions of matchCapabilityChanges."""
    return [_capabilities(one, unit) for one in selector.capability_changes]


def _capabilities(one: MatchCapabilities, unit: Unit) -> ProcessFilter:
    unit.use_images()
    number, name = _SETS.index(one.set), f"{one.set.name.lower()}_capabilities"
    changed = f"changed_capabilities(image, {number}, {name})"
    hit = f"({changed} & {one.mask:#x}ull)"
    if one.operator is not Operator.IN:
        hit = f"(!{hit} && {changed})"
    condition = f"({hit} && record_capabilities(image, {number}, {name}))"
    if one.is_namespace_capability:
        condition = f"(in_user_namespace() && {condition})"
    prepare = (*IMAGE, f"u64 {name} = KERNEL(u64, current_cred() + {CAPABILITY_SETS[one.set]});")
    what = f"matchCapabilityChanges: {one.set.value} {one.operator.value} {one.mask:#x}"
    return ProcessFilter(condition, what, prepare, _HEADERS, late=True)


FAMILIES = (binaries, parent_binaries, namespace_changes, capability_changes)
