"""A document and values of its parameters to a tracing policy.

Values are put into the document's structure, never into its text: a value cannot become a key.
``${name}`` stands for a parameter, ``${name|below}`` for paths below those that it names,
``${name|mapped}`` for networks with those that IPv4 has on IPv6 sockets. An element of a list with
``if: name`` (or ``if: not name``) is there only if the parameter is not empty or false.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from readymade.documents import Ready
from readymade.parameters import NONE, ReadyError, Value, shown

TAG_PREFIX = "ready/"  # of the tag that events of ready-made policies have
_ANNOTATION = "tetra.io/"  # before the name of a parameter
_READY_MADE = "tetra.io/ready-made"  # has the name of the policy
_PLACE = re.compile(r"\$\{(\w+)(?:\|(\w+))?\}\Z")
_SECTIONS = ("kprobes", "fentries", "tracepoints", "lsmhooks")


def render(ready: Ready, given: Mapping[str, str] | None = None) -> str:
    """Return the policy as YAML; ``given`` are values as a user wrote them.

    Raises `ReadyError` for a parameter that the policy does not have, or a value of another type.
    """
    values = settings(ready, given or {})
    spec = _spec(_filled(ready.spec, values))
    document = {
        "apiVersion": "tetra.io/v1",
        "kind": "TracingPolicy",
        "metadata": {
            "name": ready.name,
            "annotations": {
                _READY_MADE: ready.name,
                **{_ANNOTATION + name: shown(value) for name, value in values.items()},
            },
        },
        "spec": spec,
    }
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def given_in(ready: Ready, document: str) -> dict[str, str]:
    """Return the parameters of a document of `render` that are not the defaults, as written.

    A document of the same name that is not from `render` has none.
    """
    found = yaml.load(document, yaml.CSafeLoader)["metadata"].get("annotations") or {}
    if found.get(_READY_MADE) != ready.name:
        return {}
    return {
        name: found[_ANNOTATION + name] or NONE
        for name, one in ready.parameters.items()
        if found.get(_ANNOTATION + name, shown(one.default)) != shown(one.default)
    }


def settings(ready: Ready, given: Mapping[str, str]) -> dict[str, Value]:
    """Return the value of every parameter; raise `ReadyError`."""
    for name in given:
        if name not in ready.parameters:
            allowed = ", ".join(ready.parameters) or "none"
            raise ReadyError(f'{ready.name} has no parameter "{name}" (allowed: {allowed})')
    return {
        name: one.read(given[name]) if name in given else one.default
        for name, one in ready.parameters.items()
    }


class _Dumper(yaml.CSafeDumper):
    """Writes repeated parts out: an alias is a mistake in a tracing policy."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _below(value: Value) -> list[str]:
    assert isinstance(value, tuple)
    return [path.rstrip("/") + "/" for path in value]


def _files(value: Value) -> list[str]:
    """Return paths themselves; the root has no path text that a filter could compare."""
    assert isinstance(value, tuple)
    return [path for path in value if path != "/"]


def _mapped(value: Value) -> list[str]:
    """Return networks, those of IPv4 also as the addresses that they are on an IPv6 socket."""
    assert isinstance(value, tuple)
    found = []
    for text in value:
        found.append(text)
        address, _, bits = text.partition("/")
        if ":" not in address:
            found.append(f"::ffff:{address}/{_MAPPED_BITS + int(bits)}")
    return found


_MAPPED_BITS = 96  # RFC 4291, 2.5.5.2
_FILTERS: dict[str, Callable[[Value], Any]] = {"below": _below, "files": _files, "mapped": _mapped}


def _filled(part: Any, values: Mapping[str, Value]) -> Any:
    if isinstance(part, str):
        match = _PLACE.match(part)
        if match is None:
            return part
        value = values[match[1]]
        if match[2]:
            return _FILTERS[match[2]](value)
        return list(value) if isinstance(value, tuple) else value
    if isinstance(part, Mapping):
        return {key: _filled(one, values) for key, one in part.items() if key != "if"}
    if isinstance(part, list):
        made: list[Any] = []
        for one in part:
            if isinstance(one, Mapping) and not _wanted(one.get("if"), values):
                continue
            filled = _filled(one, values)
            if isinstance(one, str) and isinstance(filled, list):
                made += filled  # a parameter among other values
            elif isinstance(one, list):
                made += filled  # the elements that an anchor names
            else:
                made.append(filled)
        return made
    return part


def _wanted(condition: str | None, values: Mapping[str, Value]) -> bool:
    if condition is None:
        return True
    name = condition.removeprefix("not ")
    return bool(values[name]) is (name == condition)


def _spec(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the spec without filters that have no values."""
    made = {key: _hooks(part) if key in _SECTIONS else part for key, part in spec.items()}
    if "variants" in made:
        made["variants"] = [
            {key: _hooks(part) for key, part in variant.items()} for variant in made["variants"]
        ]
    return made


def _hooks(hooks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = []
    for hook in hooks:
        if "selectors" in hook:
            selectors = [one for one in map(_selector, hook["selectors"]) if one is not None]
            if not selectors:
                continue  # every selector names values that are not there
            hook = {**hook, "selectors": selectors}
        made.append(hook)
    return made


def _selector(selector: dict[str, Any]) -> dict[str, Any] | None:
    """Return the selector without filters of no values; None if it can match nothing."""
    made: dict[str, Any] = {}
    for key, filters in selector.items():
        kept = []
        for one in filters if isinstance(filters, list) else ():
            if isinstance(one, Mapping) and one.get("values") == []:
                if str(one["operator"]).startswith("Not"):
                    continue
                return None
            kept.append(one)
        if not isinstance(filters, list):
            made[key] = filters
        elif kept:
            made[key] = kept
    return made
