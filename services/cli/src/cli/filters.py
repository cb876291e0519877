"""Filters: flags to ``tetragon.Filter``, and matching here where no server does it (stdin)."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cli.errors import UsageError
from cli.processes import process_of
from tetragon.capabilities_pb2 import CapabilitiesType
from tetragon.events_pb2 import (
    EXCLUDE,
    INCLUDE,
    CapFilterSet,
    EventType,
    FieldFilter,
    Filter,
    GetEventsResponse,
)
from tetragon.tetragon_pb2 import Process

Predicate = Callable[[GetEventsResponse], bool]

_CAPABILITY_SETS = ("permitted", "effective", "inheritable")
_CAPABILITY_MODES = ("any", "all", "exactly", "none")
_CAPABILITIES_EXAMPLE = (
    "--capabilities CAP_SYS_ADMIN or --capabilities effective:any:CAP_BPF+CAP_PERFMON"
)


def filter_from(args: argparse.Namespace) -> Filter:
    """Return the one filter that the flags make: all of them must hold."""
    wanted = Filter(
        binary_regex=args.process,
        namespace=[*args.namespace, *([""] if args.host else [])],
        pid=[_number(text, "--pid") for text in args.pid],
        pid_set=[_number(text, "--pid-set") for text in args.pid_set],
        event_set=[event_type(text) for text in args.event_types],
        pod_regex=args.pod,
        arguments_regex=args.arguments,
        labels=args.labels,
        policy_names=args.policy_names,
        parent_binary_regex=args.parent_process,
        cel_expression=args.cel_expression,
        container_id=args.container_id,
        container_name_regex=args.containers,
        namespace_regex=args.namespace_regex,
    )
    for text in args.capabilities:
        _add_capabilities(wanted, text)
    for patterns in (
        wanted.binary_regex,
        wanted.pod_regex,
        wanted.arguments_regex,
        wanted.parent_binary_regex,
        wanted.container_id,
        wanted.container_name_regex,
        wanted.namespace_regex,
    ):
        for pattern in patterns:
            _check_brackets(pattern)
    return wanted


def field_filters_from(args: argparse.Namespace) -> list[FieldFilter]:
    """Return what ``--include-fields`` and ``--exclude-fields`` ask, in this order."""
    filters = []
    for action, paths in ((INCLUDE, args.include_fields), (EXCLUDE, args.exclude_fields)):
        for path in paths:
            if not all(path.split(".")):
                raise UsageError(
                    f"--include-fields, --exclude-fields: {path!r}: empty name in it",
                    "--include-fields process.pid,parent",
                )
        if paths:
            made = FieldFilter(action=action)
            made.fields.paths.extend(paths)
            filters.append(made)
    return filters


def event_type(text: str) -> EventType.ValueType:
    """Return the event type named ``PROCESS_EXEC``, ``process_exec`` or ``exec``."""
    name = text.strip().upper()
    for candidate in (name, f"PROCESS_{name}"):
        if candidate in EventType.DESCRIPTOR.values_by_name and candidate != "UNDEF":
            return EventType.Value(candidate)
    raise UsageError(
        f"--event-types: {text!r} is not an event type", "--event-types PROCESS_EXEC,PROCESS_EXIT"
    )


def _number(text: str, flag: str) -> int:
    if not text.isdecimal() or int(text) >= 1 << 32:
        raise UsageError(f"{flag}: {text!r} is not a process id", f"{flag} 1,4711")
    return int(text)


def _add_capabilities(wanted: Filter, text: str) -> None:
    """Add ``[set:[mode:]]NAME+NAME``; set is effective and mode any where not given."""
    *path, names = text.split(":")
    which = path[0] if path else "effective"
    mode = path[1] if len(path) > 1 else "any"
    if which not in _CAPABILITY_SETS or mode not in _CAPABILITY_MODES or len(path) > 2:
        raise UsageError(f"--capabilities: {text!r} is not understood", _CAPABILITIES_EXAMPLE)
    numbers = [_capability(name) for name in names.split("+")]
    getattr(getattr(wanted.capabilities, which), mode).extend(numbers)


def _capability(text: str) -> CapabilitiesType.ValueType:
    name = text.strip().upper()
    for candidate in (name, f"CAP_{name}", name.removeprefix("CAP_")):
        if candidate in CapabilitiesType.DESCRIPTOR.values_by_name:
            return CapabilitiesType.Value(candidate)
    raise UsageError(f"--capabilities: {text!r} is not a capability", _CAPABILITIES_EXAMPLE)


def _check_brackets(pattern: str) -> None:
    # The server's regular expressions are RE2. Only what no dialect accepts is refused here.
    try:
        re.compile(pattern)
    except re.error as error:
        if error.msg.startswith(("missing ), ", "unterminated character set", "unbalanced")):
            raise UsageError(
                f"regular expression {pattern!r}: {error.msg}", "--process '^/usr/bin/(ls|cat)$'"
            ) from None


# Matching without a server


def local_predicate(wanted: Filter) -> Predicate:
    """Return a test for ``wanted``, by the rules that the server follows.

    Raises `UsageError` for CEL, which only a server evaluates, and for a bad pattern.
    """
    if wanted.cel_expression:
        raise UsageError("--cel-expression: only a server evaluates it, stdin is filtered here")
    tests = [
        make(getattr(wanted, field.name))
        for field, _ in wanted.ListFields()
        if (make := _TESTS.get(field.name))
    ]
    return lambda event: all(test(event) for test in tests)


def _compile(patterns: Iterable[str]) -> list[re.Pattern[str]]:
    compiled = []
    for pattern in patterns:
        try:
            # \z is RE2's word for what Python calls \Z.
            compiled.append(re.compile(pattern.replace(r"\z", r"\Z")))
        except re.error as error:
            raise UsageError(
                f"regular expression {pattern!r}: {error.msg}", "--process '^/usr/bin/(ls|cat)$'"
            ) from None
    return compiled


def _regex(
    texts: Callable[[Process], Sequence[str]], member: str = "process"
) -> Callable[[Sequence[str]], Predicate]:
    """Return a maker of tests: any pattern is found in any of the texts of a process."""

    def make(patterns: Sequence[str]) -> Predicate:
        compiled = _compile(patterns)

        def test(event: GetEventsResponse) -> bool:
            process = process_of(event, member)
            if process is None:
                return False
            return any(regex.search(text) for text in texts(process) for regex in compiled)

        return test

    return make


def _equal(text: Callable[[Process], object]) -> Callable[[Sequence[Any]], Predicate]:
    def make(values: Sequence[Any]) -> Predicate:
        allowed = frozenset(values)

        def test(event: GetEventsResponse) -> bool:
            process = process_of(event)
            return process is not None and text(process) in allowed

        return test

    return make


def _event_set(values: Sequence[int]) -> Predicate:
    names = {event_name.lower() for event_name, n in EventType.items() if n in values}
    return lambda event: event.WhichOneof("event") in names


def _pid_set(values: Sequence[int]) -> Predicate:
    family = set(values)

    def test(event: GetEventsResponse) -> bool:
        process, parent = process_of(event), process_of(event, "parent")
        if process is None:
            return False
        if process.pid.value in family:
            return True
        if parent is not None and parent.pid.value in family:
            family.add(process.pid.value)
            return True
        return False

    return test


def _policy_names(values: Sequence[str]) -> Predicate:
    kinds = ("process_kprobe", "process_tracepoint", "process_uprobe", "process_lsm")

    def test(event: GetEventsResponse) -> bool:
        kind = event.WhichOneof("event")
        return kind in kinds and getattr(event, kind).policy_name in values

    return test


def _capabilities(wanted: Any) -> Predicate:
    rules = [
        (name, _capability_rule(getattr(wanted, name)))
        for name in _CAPABILITY_SETS
        if wanted.HasField(name)
    ]

    def test(event: GetEventsResponse) -> bool:
        process = process_of(event)
        if process is None or not process.HasField("cap"):
            return False
        return all(rule(frozenset(getattr(process.cap, name))) for name, rule in rules)

    return test


def _capability_rule(wanted: CapFilterSet) -> Callable[[frozenset[int]], bool]:
    given = [mode for mode in _CAPABILITY_MODES if getattr(wanted, mode)]
    if len(given) != 1:
        raise UsageError(
            "--capabilities: one of any, all, exactly, none for each set", _CAPABILITIES_EXAMPLE
        )
    listed = frozenset(getattr(wanted, given[0]))
    rules: dict[str, Callable[[frozenset[int]], bool]] = {
        "any": lambda have: bool(have & listed),
        "all": lambda have: listed <= have,
        "exactly": lambda have: have == listed,
        "none": lambda have: not have & listed,
    }
    return rules[given[0]]


def _labels(selectors: Sequence[str]) -> Predicate:
    parsed = [parse_selector(selector) for selector in selectors]

    def test(event: GetEventsResponse) -> bool:
        process = process_of(event)
        if process is None or not process.HasField("pod"):
            return False
        labels = process.pod.pod_labels
        return any(all(rule(labels) for rule in rules) for rules in parsed)

    return test


_REQUIREMENT = re.compile(
    r"\s*(?:(?P<absent>!)?\s*(?P<key>[\w./-]+)\s*"
    r"(?:(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)|\s(?P<set>in|notin)\s*\((?P<values>[^)]*)\))?)\s*(?:,|$)"
)


def parse_selector(text: str) -> list[Callable[[Mapping[str, str]], bool]]:
    """Return the requirements of a Kubernetes label selector such as ``a=b,c in (x,y),!d``."""
    rules: list[Callable[[Mapping[str, str]], bool]] = []
    at = 0
    while at < len(text):
        found = _REQUIREMENT.match(text, at)
        if not found:
            raise UsageError(
                f"--labels: {text!r} is no selector", "--labels 'app=web,tier in (a,b)'"
            )
        rules.append(_requirement(found))
        at = found.end()
    return rules


def _requirement(found: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    key, value = found["key"], found["value"]
    if found["absent"]:
        return lambda labels: key not in labels
    if found["set"]:
        values = {part.strip() for part in found["values"].split(",")}
        if found["set"] == "in":
            return lambda labels: key in labels and labels[key] in values
        return lambda labels: key not in labels or labels[key] not in values
    if found["op"] == "!=":
        return lambda labels: key not in labels or labels[key] != value
    if found["op"]:
        return lambda labels: key in labels and labels[key] == value
    return lambda labels: key in labels


def _pod_texts(pick: Callable[[Process], str]) -> Callable[[Process], Sequence[str]]:
    return lambda process: (pick(process),) if process.HasField("pod") else ()


def _container_names(process: Process) -> Sequence[str]:
    return [name for name in (process.pod.container.name, process.container_info.name) if name]


_TESTS: dict[str, Callable[[Any], Predicate]] = {
    "binary_regex": _regex(lambda p: (p.binary,)),
    "namespace": _equal(lambda p: p.pod.namespace),
    "pid": _equal(lambda p: p.pid.value),
    "pid_set": _pid_set,
    "event_set": _event_set,
    "pod_regex": _regex(_pod_texts(lambda p: p.pod.name)),
    "arguments_regex": _regex(lambda p: (p.arguments,)),
    "labels": _labels,
    "policy_names": _policy_names,
    "capabilities": _capabilities,
    "parent_binary_regex": _regex(lambda p: (p.binary,), "parent"),
    "container_id": _regex(lambda p: (p.docker,)),
    "container_name_regex": _regex(_container_names),
    "namespace_regex": _regex(_pod_texts(lambda p: p.pod.namespace)),
}


def apply_field_filters(event: GetEventsResponse, filters: Iterable[FieldFilter]) -> None:
    """Keep or remove the fields that ``filters`` name, in the inner event message."""
    kind = event.WhichOneof("event")
    if kind is None:
        return
    for field_filter in filters:
        paths = [tuple(path.split(".")) for path in field_filter.fields.paths]
        if paths:
            _prune(getattr(event, kind), paths, keep=field_filter.action == INCLUDE)


def _prune(message: Any, paths: Sequence[tuple[str, ...]], *, keep: bool) -> None:
    for field, value in message.ListFields():
        below = [path[1:] for path in paths if path[0] == field.name]
        whole = () in below
        if whole or not below:
            if whole != keep:
                message.ClearField(field.name)
        elif field.message_type is not None:
            for child in value if field.is_repeated else (value,):
                if hasattr(child, "ListFields"):
                    _prune(child, below, keep=keep)
