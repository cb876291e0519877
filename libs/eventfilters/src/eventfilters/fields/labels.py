"""labels: a Kubernetes label selector matches the pod's labels.

The syntax is that of kubectl: ``a=b``, ``a==b``, ``a!=b``, ``a in (b,c)``, ``a notin (b,c)``,
``a``, ``!a``, ``a>1``, ``a<1``, joined by commas. The empty selector matches any pod.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from eventfilters.errors import FilterError
from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from eventfilters.regex import shorten
from tetragon.events_pb2 import Filter

_Selector = Callable[[Mapping[str, str]], bool]

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
_KEY = rf"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/)?{_NAME}"
_VALUE = rf"(?:{_NAME})?"
_REQUIREMENT = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<no_key>{_KEY})"
    rf"|(?P<key>{_KEY})(?:"
    rf"\s*(?P<compare>==|=|!=)\s*(?P<value>{_VALUE})"
    rf"|\s*(?P<order>[<>])\s*(?P<number>-?\d+)"
    rf"|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?P<end>,|$)"
)


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.labels:
        return None
    selectors = []
    for text in wanted.labels:
        selectors.append(parse(text))
        allowance.check_time()

    def match(event: Event) -> bool:
        if event.process is None or not event.process.HasField("pod"):
            return False
        labels = event.process.pod.pod_labels
        return any(selector(labels) for selector in selectors)

    return match


def parse(text: str) -> _Selector:
    """Return the selector in ``text``; raise `FilterError` naming it if it is malformed."""
    if not text.strip():
        return lambda labels: True
    requirements: list[_Selector] = []
    at = 0
    while True:
        found = _REQUIREMENT.match(text, at)
        if found is None:
            raise FilterError(f"labels: selector {shorten(text)!r}: malformed at {at}")
        requirements.append(_requirement(text, found))
        at = found.end()
        if found["end"] != ",":
            return lambda labels: all(holds(labels) for holds in requirements)


def _requirement(text: str, found: re.Match[str]) -> _Selector:
    if found["absent"]:
        unwanted = found["no_key"]
        return lambda labels: unwanted not in labels
    key = found["key"]
    if found["order"]:
        limit, above = int(found["number"]), found["order"] == ">"
        return lambda labels: _is_beyond(labels.get(key), limit, above)
    if found["set"]:
        parts = [part.strip() for part in found["values"].split(",")]
        if not all(re.fullmatch(_VALUE, part) for part in parts):
            raise FilterError(f"labels: selector {shorten(text)!r}: malformed value")
        values, negated = frozenset(parts), found["set"] == "notin"
    elif found["compare"]:
        values, negated = frozenset((found["value"],)), found["compare"] == "!="
    else:
        return lambda labels: key in labels
    if negated:  # a missing label differs from any value
        return lambda labels: labels.get(key) not in values
    return lambda labels: labels.get(key) in values


def _is_beyond(value: str | None, limit: int, above: bool) -> bool:
    if value is None or not re.fullmatch(r"[+-]?\d{1,19}", value):
        return False
    return int(value) > limit if above else int(value) < limit
