"""capabilities: sets of the process's capabilities; each set that is given has to match.

Capabilities are told by collectors that were asked to (setting enable_process_cred); without them
this matches nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.batch import Event
from gateway.errors import RequestError
from gateway.filters.predicate import Predicate
from tetragon import events_pb2

_RULES: dict[str, Callable[[frozenset[int], frozenset[int]], bool]] = {
    "any": lambda has, listed: bool(has & listed),
    "all": lambda has, listed: has >= listed,
    "exactly": lambda has, listed: has == listed,
    "none": lambda has, listed: not has & listed,
}


def build(wanted: events_pb2.Filter) -> Predicate | None:
    """Return the predicate, or None where the field is not set."""
    if not wanted.HasField("capabilities"):
        return None
    rules = []
    for name in ("effective", "inheritable", "permitted"):
        if not wanted.capabilities.HasField(name):
            continue
        sets = getattr(wanted.capabilities, name)
        given = [rule for rule in _RULES if getattr(sets, rule)]
        if len(given) != 1:
            raise RequestError(
                f"capabilities: {name}: exactly one of any, all, exactly, none has to be set"
            )
        rules.append((name, _RULES[given[0]], frozenset(getattr(sets, given[0]))))

    def match(event: Event) -> bool:
        if event.process is None or not event.process.HasField("cap"):
            return False
        has = event.process.cap
        return all(rule(frozenset(getattr(has, name)), listed) for name, rule, listed in rules)

    return match
