"""capabilities: sets of the process's capabilities; each set that is given must match.

Collectors report capabilities where the setting enable_process_cred is on; without it the filter
matches nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from eventfilters.errors import FilterError
from eventfilters.event import Event
from eventfilters.limits import Allowance
from eventfilters.predicate import Predicate
from tetragon.events_pb2 import Filter

_RULES: dict[str, Callable[[frozenset[int], frozenset[int]], bool]] = {
    "any": lambda has, listed: bool(has & listed),
    "all": lambda has, listed: has >= listed,
    "exactly": lambda has, listed: has == listed,
    "none": lambda has, listed: not has & listed,
}


def build(wanted: Filter, allowance: Allowance) -> Predicate | None:
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
            raise FilterError(
                f"capabilities: {name}: exactly one of any, all, exactly, none must be set"
            )
        rules.append((name, _RULES[given[0]], frozenset(getattr(sets, given[0]))))

    def match(event: Event) -> bool:
        if event.process is None or not event.process.HasField("cap"):
            return False
        has = event.process.cap
        return all(rule(frozenset(getattr(has, name)), listed) for name, rule, listed in rules)

    return match
