"""Filters: from flags to ``tetragon.Filter``. `eventfilters` matches them, here or at a gateway."""

from __future__ import annotations

import re
from typing import Any

from cli.errors import UsageError
from tetragon.capabilities_pb2 import CapabilitiesType
from tetragon.events_pb2 import (
    EXCLUDE,
    INCLUDE,
    EventType,
    FieldFilter,
    Filter,
)

_CAPABILITY_SETS = ("permitted", "effective", "inheritable")
_CAPABILITY_MODES = ("any", "all", "exactly", "none")
_CAPABILITIES_EXAMPLE = "--capabilities effective:any:CAP_BPF+CAP_PERFMON"


def filter_from(args: Any) -> Filter:
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
        file_below=args.files,
        peer=args.connections,
        unit=args.unit,
        session=args.session,
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


def field_filters_from(args: Any) -> list[FieldFilter]:
    """Return the field filters of ``--include-fields`` and ``--exclude-fields``, in this order."""
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
    # Patterns are RE2's. Here only those are refused that no dialect accepts: loading RE2 for the
    # others takes longer than asking the gateway.
    try:
        re.compile(pattern)
    except re.error as error:
        if error.msg.startswith(("missing ), ", "unterminated character set", "unbalanced")):
            raise UsageError(
                f"regular expression {pattern!r}: {error.msg}", "--process '^/usr/bin/(ls|cat)$'"
            ) from None
