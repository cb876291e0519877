"""A whole document: frame, metadata, spec, and the rules between sections."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import TypedDict, TypeVar

from tracingpolicy.model import (
    ORIGINAL_API,
    OWN_API,
    Fentry,
    HookKind,
    Kprobe,
    Lsm,
    Policy,
    PolicyKind,
    SymbolList,
    Tracepoint,
    Uprobe,
    Usdt,
)
from tracingpolicy.position import Mistake, PolicyErrors
from tracingpolicy.reading.context import PolicyContext
from tracingpolicy.reading.document import Kind, Node, compose
from tracingpolicy.reading.fields import Fields
from tracingpolicy.reading.hooks import HookReader
from tracingpolicy.reading.lists import read_enforcer, read_list, read_options
from tracingpolicy.reading.names import check_name, check_namespace, label_selector, text_map
from tracingpolicy.reading.processes import host_selector
from tracingpolicy.reading.report import Report, quoted
from tracingpolicy.reading.selectors import check_macros
from tracingpolicy.reading.uprobes import read_uprobe
from tracingpolicy.selectors import LabelSelector

T = TypeVar("T")

_TOP = ("apiVersion", "kind", "metadata", "spec")
# What a Kubernetes API server adds is accepted and has no effect.
_METADATA = (
    "name", "namespace", "labels", "annotations", "generateName", "selfLink", "uid",
    "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
    "deletionGracePeriodSeconds", "ownerReferences", "finalizers", "managedFields",
)  # fmt: skip
_SPEC = (
    *(kind.value for kind in HookKind), "podSelector", "containerSelector",
    "hostSelector", "nodeSelector", "lists", "enforcers", "options", "selectorsMacros",
    "variants",
)  # fmt: skip
_SECTIONS = tuple(kind.value for kind in HookKind)
_MAX_VARIANTS = 8
_PROGRAMS = ("uprobes", "usdts")
_WORKLOADS = ("podSelector", "containerSelector", "hostSelector")


def parse(text: str | bytes, file: str = "policy") -> Policy:
    """Return the policy in a document.

    Raises PolicyErrors with every mistake; ``file`` is the name that they carry.
    """
    policy, mistakes = read(text, file)
    if mistakes or policy is None:
        raise PolicyErrors(mistakes)
    data = text.encode() if isinstance(text, str) else text
    object.__setattr__(policy, "digest", hashlib.sha256(data).digest())
    return policy


def read(text: str | bytes, file: str = "policy") -> tuple[Policy | None, tuple[Mistake, ...]]:
    """Return what could be read and every mistake.

    With mistakes the policy lacks what was refused: it serves to find further ones only.
    """
    report = Report(file)
    root = compose(text, report)
    policy = _policy(report, root) if root else None
    return policy, PolicyErrors(report.mistakes).mistakes


def _policy(report: Report, root: Node) -> Policy:
    top = Fields(report, root, "document", _TOP, required=("kind", "metadata", "spec"))
    version = top.text("apiVersion", ORIGINAL_API)
    if version.startswith(OWN_API.partition("/")[0] + "/") and version != OWN_API:
        top.fail(
            f"{quoted(version)} is not an API version", "apiVersion", f"{OWN_API}, {ORIGINAL_API}"
        )
    kind = top.member("kind", PolicyKind, PolicyKind.TRACING_POLICY, "a kind of policies")
    namespaced = kind is PolicyKind.NAMESPACED
    metadata = Fields(report, top.entries.get("metadata", _nothing(root)), "metadata", _METADATA)
    if top.has("metadata"):
        _check_metadata(metadata, namespaced)
    spec = Fields(report, top.entries.get("spec", _nothing(root)), "spec", _SPEC)
    return _Spec(report, spec, PolicyContext(version == OWN_API, namespaced)).read(
        Policy(
            name=check_name(metadata, "name"),
            kind=kind,
            api_version=version,
            namespace=check_namespace(metadata, "namespace") if namespaced else "",
            labels=text_map(metadata, "labels", labels=True),
            annotations=text_map(metadata, "annotations", labels=False),
            file=report.file,
            place=top.place(),
        )
    )


def _nothing(root: Node) -> Node:
    return Node(Kind.MAPPING, root.position)


def _check_metadata(metadata: Fields, namespaced: bool) -> None:
    if not metadata.has("name"):
        metadata.fail("name is missing")
    if namespaced and not metadata.has("namespace"):
        metadata.fail("namespace is missing: kind TracingPolicyNamespaced needs it")
    if not namespaced and metadata.has("namespace"):
        metadata.fail(
            "kind TracingPolicy has no namespace", "namespace", "kind: TracingPolicyNamespaced"
        )


class _Hooks(TypedDict):
    kprobes: tuple[Kprobe, ...]
    fentries: tuple[Fentry, ...]
    tracepoints: tuple[Tracepoint, ...]
    uprobes: tuple[Uprobe, ...]
    usdts: tuple[Usdt, ...]
    lsmhooks: tuple[Lsm, ...]


class _Spec:
    def __init__(self, report: Report, spec: Fields, context: PolicyContext) -> None:
        self._report, self._spec, self._context = report, spec, context
        self._reader = HookReader(report, context)

    def read(self, frame: Policy) -> Policy:
        """Return ``frame`` with everything in spec."""
        spec = self._spec
        lists = spec.each("lists", lambda node, path: read_list(self._report, node, path))
        self._check_list_names(lists)
        self._context.lists = frozenset(one.name for one in lists)
        enforcers = spec.each(
            "enforcers",
            lambda node, path: read_enforcer(self._report, node, path, self._context.lists),
        )
        self._context.has_enforcers = bool(enforcers)
        self._context.macros = {
            name: node for name, (_, node) in spec.mapping("selectorsMacros").items()
        }
        self._check_rules(len(enforcers))
        policy = Policy(
            name=frame.name,
            kind=frame.kind,
            api_version=frame.api_version,
            namespace=frame.namespace,
            labels=frame.labels,
            annotations=frame.annotations,
            **self._hooks(spec),
            loader=spec.flag("loader"),
            pod_selector=self._labels("podSelector"),
            container_selector=self._labels("containerSelector"),
            host_selector=host_selector(spec),
            node_selector=self._labels("nodeSelector"),
            lists=lists,
            enforcers=enforcers,
            options=read_options(spec),
            file=frame.file,
            place=frame.place,
        )
        policy = replace(policy, variants=self._variants(policy))
        check_macros(self._report, self._context, "spec.selectorsMacros")
        return replace(policy, doubts=tuple(self._report.doubts))

    def _hooks(self, fields: Fields) -> _Hooks:
        """Return the hooks of spec, or of one variant."""
        reader = self._reader

        def section(kind: HookKind, read: Callable[[Node, str, int], T]) -> tuple[T, ...]:
            elements = fields.items(kind.value)
            return tuple(read(node, path, index) for index, (path, node) in enumerate(elements))

        return _Hooks(
            kprobes=section(HookKind.KPROBE, reader.kprobe),
            fentries=section(HookKind.FENTRY, reader.fentry),
            tracepoints=section(HookKind.TRACEPOINT, reader.tracepoint),
            uprobes=section(HookKind.UPROBE, lambda n, p, i: read_uprobe(reader, n, p, i)),
            usdts=section(HookKind.USDT, reader.usdt),
            lsmhooks=section(HookKind.LSM, reader.lsm),
        )

    def _variants(self, policy: Policy) -> tuple[Policy, ...]:
        """Return a policy for each variant: the hooks of spec, then those of the variant."""
        spec = self._spec
        if spec.has("variants") and not self._context.own_api:
            spec.fail("Tetragon has no variants", "variants", f"apiVersion: {OWN_API}")
        elements = spec.items("variants")
        if len(elements) > _MAX_VARIANTS:
            spec.fail(f"{len(elements)} variants", "variants", f"at most {_MAX_VARIANTS}")
        made = []
        for path, node in elements:
            hooks = self._hooks(Fields(self._report, node, path, _SECTIONS))
            made.append(
                replace(
                    policy,
                    kprobes=policy.kprobes + hooks["kprobes"],
                    fentries=policy.fentries + hooks["fentries"],
                    tracepoints=policy.tracepoints + hooks["tracepoints"],
                    uprobes=policy.uprobes + hooks["uprobes"],
                    usdts=policy.usdts + hooks["usdts"],
                    lsmhooks=policy.lsmhooks + hooks["lsmhooks"],
                )
            )
        return tuple(made)

    def _labels(self, key: str) -> LabelSelector | None:
        node = self._spec.entries.get(key)
        return label_selector(self._report, node, f"spec.{key}") if node else None

    def _check_list_names(self, lists: tuple[SymbolList, ...]) -> None:
        seen: set[str] = set()
        for one in lists:
            if one.name in seen:
                message = f"spec.lists: a second list has the name {quoted(one.name)}"
                self._report.add(one.place.of("name"), message)
            seen.add(one.name)

    def _check_rules(self, enforcers: int) -> None:
        """Check what sections forbid each other."""
        spec = self._spec
        if enforcers > 1:
            spec.fail(f"{enforcers} enforcers", "enforcers", "one, with all calls")
        if spec.has("loader") and spec.flag("loader"):
            for key in _WORKLOADS:
                if spec.has(key):
                    spec.fail("loader cannot be limited to workloads", key)
        if self._context.namespaced:
            for key in _PROGRAMS:
                if spec.items(key):
                    spec.fail(
                        f"{key} are for the host: a namespaced policy has none",
                        key,
                        "kind: TracingPolicy",
                    )
            if spec.has("hostSelector"):
                spec.fail("a namespaced policy selects pods only", "hostSelector", "null")
