"""Filters of a request as SQL: exactly, or so that every event which passes them is found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tetragon.events_pb2 import EventType, Filter

_KINDS: dict[int, str] = {one.number: one.name.lower() for one in EventType.DESCRIPTOR.values}
_KINDS[0] = ""
_METACHARACTER = re.compile(r"[\\.^$|?*+()\[\]{}]")
_ESCAPED = re.compile(r"\\([^A-Za-z0-9\s])")
# As the filter of the same name: Tetragon leaves usdt events out.
_OF_POLICIES = ("process_kprobe", "process_tracepoint", "process_uprobe", "process_lsm")
_NEVER = "false"


class Condition(NamedTuple):
    """A condition on columns."""

    sql: str
    exact: bool  # False: events that do not pass the filters meet it too


def text(value: str) -> str:
    """Return ``value`` as an SQL text."""
    return "'" + value.replace("'", "''") + "'"


def any_text(column: str, values: Iterable[str]) -> str:
    """Return the condition that the column has one of ``values``."""
    found = ", ".join(text(value) for value in values)
    return f'"{column}" IN ({found})' if found else _NEVER


def condition(allow: Sequence[Filter], deny: Sequence[Filter]) -> Condition:
    """Return the condition of both lists."""
    allowed, denied = [*map(_filter, allow)], [*map(_filter, deny)]
    parts = []
    if allowed:
        parts.append(_joined("OR", [one.sql for one in allowed]))
    parts += [f"NOT coalesce({one.sql}, false)" for one in denied if one.exact]
    exact = all(one.exact for one in (*allowed, *denied))
    # A filter on a set of processes depends on all earlier events.
    if any(one.pid_set for one in (*allow, *deny)):
        return Condition("true", False)
    return Condition(_joined("AND", parts) if parts else "true", exact)


def _filter(wanted: Filter) -> Condition:
    parts, exact = [], True
    for field, value in wanted.ListFields():
        build = _BUILDERS.get(field.name)
        if build is None or any("\0" in one for one in value if isinstance(one, str)):
            exact = False
        else:
            parts.append(build(value))
    return Condition(_joined("AND", parts) if parts else "true", exact)


def _joined(word: str, parts: Sequence[str]) -> str:
    return f" {word} ".join(f"({part})" for part in parts)


def _matches(column: str) -> Callable[[Sequence[str]], str]:
    return lambda patterns: _joined("OR", [_match(column, pattern) for pattern in patterns])


# DuckDB's regular expressions are RE2's, as ours. An equal text is found by a file's statistics.
def _match(column: str, pattern: str) -> str:
    if pattern.startswith("^") and pattern.endswith("$") and not pattern.endswith("\\$"):
        inner = pattern[1:-1]
        if not _METACHARACTER.search(_ESCAPED.sub("", inner)):
            literal = _ESCAPED.sub(lambda found: found[1], inner)
            return f'"{column}" = {text(literal)}'
    return f'regexp_matches("{column}", {text(pattern)})'


def _policies(names: Sequence[str]) -> str:
    wanted = any_text("policy", [name for name in names if name])
    return f"{wanted} AND {any_text('kind', _OF_POLICIES)}"


_BUILDERS: dict[str, Callable[[Any], str]] = {
    "binary_regex": _matches("binary"),
    "arguments_regex": _matches("arguments"),
    "parent_binary_regex": _matches("parent_binary"),
    "container_id": _matches("container_id"),
    "container_name_regex": _matches("container_name"),
    "pod_regex": _matches("pod"),
    "namespace": lambda names: any_text("namespace", names),
    "policy_names": _policies,
    "pid": lambda pids: f'"pid" IN ({", ".join(map(str, pids))})',
    "event_set": lambda kinds: any_text("kind", [_KINDS[one] for one in kinds if one in _KINDS]),
}
