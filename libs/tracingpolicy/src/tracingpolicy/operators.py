"""The operators of filters, as tables: spellings, numbers, and the types that each can compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from tracingpolicy.types import TYPES, ArgumentType, Family


class Operator(Enum):
    """An operator under the spelling that the documentation uses."""

    EQUAL = "Equal"
    NOT_EQUAL = "NotEqual"
    GT = "GT"
    LT = "LT"
    MASK = "Mask"
    IN_RANGE = "InRange"
    NOT_IN_RANGE = "NotInRange"
    IN_MAP = "InMap"
    NOT_IN_MAP = "NotInMap"
    PREFIX = "Prefix"
    NOT_PREFIX = "NotPrefix"
    POSTFIX = "Postfix"
    NOT_POSTFIX = "NotPostfix"
    BELOW = "Below"  # our own, like NotBelow
    NOT_BELOW = "NotBelow"
    SUBSTRING = "SubString"
    SUBSTRING_IGNORE_CASE = "SubStringIgnCase"
    FILE_TYPE = "FileType"
    NOT_FILE_TYPE = "NotFileType"
    SADDR = "SAddr"
    NOT_SADDR = "NotSAddr"
    DADDR = "DAddr"
    NOT_DADDR = "NotDAddr"
    SPORT = "SPort"
    NOT_SPORT = "NotSPort"
    DPORT = "DPort"
    NOT_DPORT = "NotDPort"
    SPORT_PRIVILEGED = "SPortPriv"
    NOT_SPORT_PRIVILEGED = "NotSPortPriv"
    DPORT_PRIVILEGED = "DPortPriv"
    NOT_DPORT_PRIVILEGED = "NotDPortPriv"
    PROTOCOL = "Protocol"
    FAMILY = "Family"
    STATE = "State"
    CAPABILITIES_GAINED = "CapabilitiesGained"
    CEL = "CelExpr"
    FIRST = "First"  # our own
    IN = "In"  # process filters only, like NotIn
    NOT_IN = "NotIn"


class Operands(Enum):
    """How the values of an operator are read."""

    NUMBERS = "numbers, or capability names on capability sets"
    RANGES = "min:max"
    MAP = "decimal numbers, min:max or list:NAME"
    TEXTS = "texts"
    FILE_TYPES = "file types"
    ADDRESSES = "IP addresses or CIDR networks"
    PORTS = "ports or min:max"
    PROTOCOLS = "numbers, min:max or names as IPPROTO_TCP"
    FAMILIES = "numbers, min:max or names as AF_INET"
    STATES = "numbers, min:max or names as TCP_LISTEN"
    EXPRESSION = "one expression"
    NONE = "no values"
    LISTED = "as the filter says"


@dataclass(frozen=True, slots=True)
class OperatorInfo:
    """What is the same for every use of one operator."""

    number: int
    operands: Operands
    meaning: str
    opposite: Operator | None = None  # the operator that this one negates; None for positive ones
    aliases: tuple[str, ...] = ()


_O = Operator
_V = Operands

OPERATORS: Mapping[Operator, OperatorInfo] = MappingProxyType(
    {
        _O.EQUAL: OperatorInfo(3, _V.NUMBERS, "equal to any value"),
        _O.NOT_EQUAL: OperatorInfo(4, _V.NUMBERS, "equal to no value", _O.EQUAL),
        _O.GT: OperatorInfo(1, _V.NUMBERS, "greater than any value", aliases=("GreaterThan",)),
        _O.LT: OperatorInfo(2, _V.NUMBERS, "less than any value", aliases=("LessThan",)),
        _O.MASK: OperatorInfo(12, _V.NUMBERS, "has a bit in common with any value"),
        _O.IN_RANGE: OperatorInfo(31, _V.RANGES, "inside any range, ends included"),
        _O.NOT_IN_RANGE: OperatorInfo(32, _V.RANGES, "inside no range", _O.IN_RANGE),
        _O.IN_MAP: OperatorInfo(10, _V.MAP, "one of the values"),
        _O.NOT_IN_MAP: OperatorInfo(11, _V.MAP, "none of the values", _O.IN_MAP),
        _O.PREFIX: OperatorInfo(8, _V.TEXTS, "begins with any value"),
        _O.NOT_PREFIX: OperatorInfo(26, _V.TEXTS, "begins with no value", _O.PREFIX),
        _O.POSTFIX: OperatorInfo(9, _V.TEXTS, "ends with any value"),
        _O.NOT_POSTFIX: OperatorInfo(27, _V.TEXTS, "ends with no value", _O.POSTFIX),
        _O.BELOW: OperatorInfo(100, _V.TEXTS, "one of the paths, or a path below one"),
        _O.NOT_BELOW: OperatorInfo(101, _V.TEXTS, "neither of the paths nor below one", _O.BELOW),
        _O.SUBSTRING: OperatorInfo(33, _V.TEXTS, "contains any value"),
        _O.SUBSTRING_IGNORE_CASE: OperatorInfo(
            34, _V.TEXTS, "contains any value, ASCII case ignored"
        ),
        _O.FILE_TYPE: OperatorInfo(36, _V.FILE_TYPES, "a file of any of the types"),
        _O.NOT_FILE_TYPE: OperatorInfo(
            37, _V.FILE_TYPES, "a file of none of the types", _O.FILE_TYPE
        ),
        _O.SADDR: OperatorInfo(13, _V.ADDRESSES, "source address in any network"),
        _O.NOT_SADDR: OperatorInfo(24, _V.ADDRESSES, "source address in no network", _O.SADDR),
        _O.DADDR: OperatorInfo(14, _V.ADDRESSES, "destination address in any network"),
        _O.NOT_DADDR: OperatorInfo(25, _V.ADDRESSES, "destination address in no network", _O.DADDR),
        _O.SPORT: OperatorInfo(15, _V.PORTS, "source port is any of the values"),
        _O.NOT_SPORT: OperatorInfo(18, _V.PORTS, "source port is none of the values", _O.SPORT),
        _O.DPORT: OperatorInfo(16, _V.PORTS, "destination port is any of the values"),
        _O.NOT_DPORT: OperatorInfo(
            19, _V.PORTS, "destination port is none of the values", _O.DPORT
        ),
        _O.SPORT_PRIVILEGED: OperatorInfo(20, _V.NONE, "source port below 1024"),
        _O.NOT_SPORT_PRIVILEGED: OperatorInfo(
            21, _V.NONE, "source port 1024 or above", _O.SPORT_PRIVILEGED, ("NotSportPriv",)
        ),
        _O.DPORT_PRIVILEGED: OperatorInfo(22, _V.NONE, "destination port below 1024"),
        _O.NOT_DPORT_PRIVILEGED: OperatorInfo(
            23, _V.NONE, "destination port 1024 or above", _O.DPORT_PRIVILEGED
        ),
        _O.PROTOCOL: OperatorInfo(17, _V.PROTOCOLS, "IP protocol is any of the values"),
        _O.FAMILY: OperatorInfo(28, _V.FAMILIES, "address family is any of the values"),
        _O.STATE: OperatorInfo(29, _V.STATES, "TCP state is any of the values"),
        _O.CAPABILITIES_GAINED: OperatorInfo(
            30, _V.NONE, "the second set (args: [old, new]) has a bit that the first lacks"
        ),
        _O.CEL: OperatorInfo(35, _V.EXPRESSION, "the expression over arg0, arg1, ... is true"),
        _O.FIRST: OperatorInfo(
            102, _V.NONE, "below 512 and new for this executable in this container"
        ),
        _O.IN: OperatorInfo(5, _V.LISTED, "one of the values"),
        _O.NOT_IN: OperatorInfo(6, _V.LISTED, "none of the values", _O.IN),
    }
)

OPERATORS_BY_NAME: Mapping[str, Operator] = MappingProxyType(
    {name: op for op, info in OPERATORS.items() for name in (op.value, *info.aliases)}
)

_EQUALITY = (_O.EQUAL, _O.NOT_EQUAL)
_ORDER = (*_EQUALITY, _O.GT, _O.LT, _O.MASK, _O.IN_RANGE, _O.NOT_IN_RANGE)
_NUMBERS = (*_ORDER, _O.IN_MAP, _O.NOT_IN_MAP)
OWN_OPERATORS = frozenset({_O.BELOW, _O.NOT_BELOW, _O.FIRST})
_TEXTS = (
    *_EQUALITY, _O.PREFIX, _O.NOT_PREFIX, _O.POSTFIX, _O.NOT_POSTFIX, _O.BELOW, _O.NOT_BELOW,
)  # fmt: skip
_SUBSTRINGS = (_O.SUBSTRING, _O.SUBSTRING_IGNORE_CASE)
_SOURCE = (
    _O.SADDR,
    _O.NOT_SADDR,
    _O.SPORT,
    _O.NOT_SPORT,
    _O.SPORT_PRIVILEGED,
    _O.NOT_SPORT_PRIVILEGED,
)
_DESTINATION = (
    _O.DADDR,
    _O.NOT_DADDR,
    _O.DPORT,
    _O.NOT_DPORT,
    _O.DPORT_PRIVILEGED,
    _O.NOT_DPORT_PRIVILEGED,
)
_BY_FAMILY: dict[Family, tuple[Operator, ...]] = {
    Family.NUMBER: (*_NUMBERS, _O.CEL, _O.FIRST),
    Family.CAPABILITIES: (*_ORDER, _O.CAPABILITIES_GAINED),
    Family.TEXT: (*_TEXTS, *_SUBSTRINGS),
    Family.PATH: (*_TEXTS, *_SUBSTRINGS, _O.FILE_TYPE, _O.NOT_FILE_TYPE),
    Family.SOCKET: (*_SOURCE, *_DESTINATION, _O.PROTOCOL, _O.FAMILY, _O.STATE),
    Family.ADDRESS: (*_SOURCE, _O.FAMILY),
    Family.UNIX_ADDRESS: (*_TEXTS, *_SUBSTRINGS, _O.FAMILY),
    Family.OTHER: (),
    Family.NONE: (),
}
# A packet has no TCP state: Tetragon accepts the filter, which then never matches.
_NEVER = {ArgumentType.SKB: {_O.STATE}, ArgumentType.SYSCALL64: {_O.CEL}}


def operators_of(kind: ArgumentType) -> tuple[Operator, ...]:
    """Return the operators that can compare an argument of this type."""
    never = _NEVER.get(kind, set())
    return tuple(op for op in _BY_FAMILY[TYPES[kind].family] if op not in never)
