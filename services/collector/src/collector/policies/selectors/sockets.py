"""Filters on sockets, packets and addresses: networks, ports, protocol, family, state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import TYPE_CHECKING

from collector.policies.ctext import all_of, any_of, negated
from collector.policies.selectors import numbers
from tracingpolicy.operators import OPERATORS, Operator
from tracingpolicy.selectors import ValueFilter

if TYPE_CHECKING:
    from collector.policies.arguments.base import Unit

Network = IPv4Network | IPv6Network

COMPARED_MAX = 16  # networks that are compared in code; more are looked up in a trie
AF_INET, AF_INET6 = 2, 10
PRIVILEGED = 1024

_FIELDS = {
    Operator.SADDR: "saddr",
    Operator.DADDR: "daddr",
    Operator.SPORT: "sport",
    Operator.DPORT: "dport",
    Operator.SPORT_PRIVILEGED: "sport",
    Operator.DPORT_PRIVILEGED: "dport",
    Operator.PROTOCOL: "protocol",
    Operator.FAMILY: "family",
    Operator.STATE: "state",
}


def condition(view: str, one: ValueFilter, unit: Unit) -> str:
    """Return the C condition of a filter on a view of sockets.h."""
    positive = OPERATORS[one.operator].opposite or one.operator
    is_not = positive is not one.operator
    return _CONDITIONS[positive](view, _FIELDS[positive], one, unit, is_not)


def _number(view: str, name: str, one: ValueFilter, unit: Unit, is_not: bool) -> str:
    field = f"{view}.{name}"
    found = numbers.contains(field, numbers.intervals(one.values), is_signed=False, unit=unit)
    return negated(found) if is_not else found


def _privileged(view: str, name: str, one: ValueFilter, unit: Unit, is_not: bool) -> str:
    return f"{view}.{name} {'>=' if is_not else '<'} {PRIVILEGED}"


def _address(view: str, name: str, one: ValueFilter, unit: Unit, is_not: bool) -> str:
    """Families other than IPv4 and IPv6 match neither the operator nor its opposite."""
    field = f"{view}.{name}"
    v4 = list(collapse_addresses(v for v in one.values if isinstance(v, IPv4Network)))
    v6 = list(collapse_addresses(v for v in one.values if isinstance(v, IPv6Network)))
    tests = []
    for family, found in (
        (AF_INET, _in_networks(field, v4, 4, unit)),
        (AF_INET6, _in_networks(field, v6, 6, unit)),
    ):
        tests.append(all_of([f"{view}.family == {family}", negated(found) if is_not else found]))
    return any_of(test for test in tests if not test.endswith("&& false)"))


def _in_networks(field: str, networks: Iterable[Network], version: int, unit: Unit) -> str:
    found = list(networks)
    if len(found) > COMPARED_MAX:
        return f"in_networks{version}(MAP({_trie(found, version, unit)}), {field})"
    compare = _compare4 if version == 4 else _compare6
    return any_of(compare(field, one) for one in found)


def _compare4(field: str, network: Network) -> str:
    mask = int.from_bytes(network.netmask.packed, "little")
    number = int.from_bytes(network.network_address.packed, "little")
    return f"(address4({field}) & {mask:#x}u) == {number:#x}u"


def _compare6(field: str, network: Network) -> str:
    tests = []
    for half in (0, 1):
        part = slice(8 * half, 8 * half + 8)
        mask = int.from_bytes(network.netmask.packed[part], "little")
        number = int.from_bytes(network.network_address.packed[part], "little")
        if mask:
            tests.append(f"(address6({field}, {half}) & {mask:#x}ull) == {number:#x}ull")
    return all_of(tests)


def _trie(networks: list[Network], version: int, unit: Unit) -> str:
    size = 4 if version == 4 else 16
    macro = f"MAP_{unit.unique('networks')}".upper()
    keys = {
        one.prefixlen.to_bytes(4, "little") + one.network_address.packed: b"\1" for one in networks
    }
    return unit.maps.lpm(macro, macro.lower()[4:], 4 + size, keys)


_CONDITIONS: dict[Operator, Callable[[str, str, ValueFilter, Unit, bool], str]] = {
    Operator.SADDR: _address,
    Operator.DADDR: _address,
    Operator.SPORT: _number,
    Operator.DPORT: _number,
    Operator.SPORT_PRIVILEGED: _privileged,
    Operator.DPORT_PRIVILEGED: _privileged,
    Operator.PROTOCOL: _number,
    Operator.FAMILY: _number,
    Operator.STATE: _number,
}
