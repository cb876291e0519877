"""The values of one filter: texts of the document to numbers, ranges, networks, bytes.

`typed_values` is public, because the type of an argument may be known only from the kernel's BTF.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

from tracingpolicy.operators import OPERATORS, Operands, Operator
from tracingpolicy.reading.document import whole_number
from tracingpolicy.reading.report import quoted, suggestion
from tracingpolicy.tables import (
    ADDRESS_FAMILIES,
    CAPABILITIES,
    FILE_TYPES,
    PROTOCOLS,
    TCP_STATES,
)
from tracingpolicy.types import TYPES, ArgumentType, Family
from tracingpolicy.values import ListReference, Range, Value

MAX_EQUAL_BYTES = 4096
MAX_PREFIX_BYTES = 256
MAX_BELOW_BYTES = 255
MAX_POSTFIX_BYTES = 127
MAX_SUBSTRING_BYTES = 99
_DECIMAL = re.compile(r"[-+]?[0-9]{1,40}\Z")
_RANGE = re.compile(r"([-+]?[^:\s]+):([-+]?[^:\s]+)\Z")
_BELOW = {Operator.BELOW, Operator.NOT_BELOW}
_ROOTED = {
    Operator.EQUAL, Operator.NOT_EQUAL, Operator.PREFIX, Operator.NOT_PREFIX, *_BELOW,
}  # fmt: skip


class Refused(NamedTuple):
    """A value that cannot be used."""

    position: int
    message: str
    allowed: str = ""


class _BadValue(Exception):
    def __init__(self, message: str, allowed: str = "") -> None:
        super().__init__(message)
        self.message, self.allowed = message, allowed


def typed_values(
    operator: Operator, texts: Sequence[str], kind: ArgumentType
) -> tuple[tuple[Value, ...], list[Refused]]:
    """Return the values of an operator on an argument of a type, and those that are refused."""
    values: list[Value] = []
    refused = []
    for index, text in enumerate(texts):
        try:
            values += _READERS[OPERATORS[operator].operands](operator, text, kind)
        except _BadValue as error:
            refused.append(Refused(index, error.message, error.allowed))
    return tuple(dict.fromkeys(values)), refused


# --- numbers ----------------------------------------------------------------------------------


def _numbers(operator: Operator, text: str, kind: ArgumentType) -> list[Value]:
    family = TYPES[kind].family
    if family in (Family.TEXT, Family.PATH, Family.UNIX_ADDRESS):
        return _texts(operator, text, kind)
    if family is Family.CAPABILITIES:
        return [_capability_mask(text)]
    if kind is ArgumentType.CAPABILITY and not text[:1].isdigit():
        return [_capability(text)]
    number = whole_number(text)
    if number is None:
        raise _BadValue(f"{quoted(text)} is not a number", "decimal, 0x..., 0o... or 0b...")
    return [_fit(operator, number, text, kind)]


def _fit(operator: Operator, number: int, text: str, kind: ArgumentType) -> int:
    """Return the number as the argument would have it; refuse one that it never has."""
    info = TYPES[kind]
    low, high = limits(kind)
    bits_low, bits_high = -(1 << (info.bits - 1)), (1 << info.bits) - 1
    if operator is Operator.MASK:
        if bits_low <= number <= bits_high:
            return number & bits_high
    elif low <= number <= high:
        return number
    elif info.signed and info.bits < 32 and number <= bits_high:
        return number - (1 << info.bits)  # 65535 is how Tetragon writes -1 of an int16
    elif kind is ArgumentType.SIZE_T and -(1 << 31) <= number < 0:
        return number & bits_high
    hint = ""
    if info.signed and high < number <= bits_high:
        hint = f"; write {number - (1 << info.bits)} for this bit pattern"
    raise _BadValue(f"{text} does not fit {kind.value}{hint}", f"{low} to {high}")


def limits(kind: ArgumentType) -> tuple[int, int]:
    """Return the smallest and largest number of a type."""
    bits = TYPES[kind].bits
    if TYPES[kind].signed:
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def _capability_mask(text: str) -> int:
    number = whole_number(text)
    if number is None:
        mask = 0
        for name in text.split(","):
            mask |= 1 << _capability(name.strip())
        return mask
    if not 0 <= number < 1 << 64:
        raise _BadValue(f"{text} is no set of 64 capabilities")
    return number


def _capability(name: str) -> int:
    if name.upper() not in CAPABILITIES:
        raise _BadValue(
            f"{quoted(name)} is not a capability{suggestion(name, CAPABILITIES)}",
            "CAP_CHOWN, CAP_NET_ADMIN, ...",
        )
    return CAPABILITIES[name.upper()]


def _ranges(operator: Operator, text: str, kind: ArgumentType) -> list[Value]:
    match = _RANGE.match(text)
    if match is None:
        raise _BadValue(f"{quoted(text)} is not a range", "min:max")
    low, high = (whole_number(part) for part in match.groups())
    if low is None or high is None:
        raise _BadValue(f"{quoted(text)} is not a range of numbers", "min:max")
    least, most = limits(kind) if TYPES[kind].bits else (0, 0)
    if TYPES[kind].family is Family.CAPABILITIES:
        least, most = 0, (1 << 64) - 1
    for number in (low, high):
        if not least <= number <= most:
            raise _BadValue(f"{number} does not fit {kind.value}", f"{least} to {most}")
    if low > high:
        raise _BadValue(f"{quoted(text)} is empty: {low} is larger than {high}", "min:max")
    return [Range(low, high)]


def _map(operator: Operator, text: str, kind: ArgumentType) -> list[Value]:
    if text.startswith("list:"):
        if kind is not ArgumentType.SYSCALL64:
            raise _BadValue(f"{quoted(text)} needs an argument of type syscall64, not {kind.value}")
        return [ListReference(text.removeprefix("list:"))]
    return [_span(text, {}, *limits(kind), f"of {kind.value}")]


def _span(text: str, names: Mapping[str, int], low: int, high: int, what: str) -> int | Range:
    """Return a decimal number, a name's number, or a range of them with its ends in order."""
    match = _RANGE.match(text)
    ends = [
        _decimal(part, names, low, high, what) for part in (match.groups() if match else [text])
    ]
    return ends[0] if len(ends) == 1 else Range(min(ends), max(ends))


def _decimal(text: str, names: Mapping[str, int], low: int, high: int, what: str) -> int:
    if text in names:
        return names[text]
    example = next(iter(names), "")
    allowed = f"{low} to {high}, decimal" + (f", or names as {example}" if example else "")
    if not _DECIMAL.match(text):
        other = whole_number(text)
        hint = f"; write {other}" if other is not None else suggestion(text, names)
        raise _BadValue(f"{quoted(text)} is not a decimal number{hint}", allowed)
    if not low <= int(text) <= high:
        raise _BadValue(f"{text} is outside the values {what}", allowed)
    return int(text)


# --- sockets ----------------------------------------------------------------------------------


def _ports(operator: Operator, text: str, kind: ArgumentType) -> list[Value]:
    return [_span(text, {}, 0, 65535, "of a port")]


def _protocols(operator: Operator, text: str, kind: ArgumentType) -> list[Value]:
    return [_span(text, PROTOCOLS, 0, 65535, "of a protocol")]


def _families(operator: Operator, text: str, kind: ArgumentType) -> list[Value]:
    return [_span(text, ADDRESS_FAMILIES, 0, 65535, "of an address family")]


def _states(operator: Operator, text: str, kind: ArgumentType) -> list[Value]:
    return [_span(text, TCP_STATES, 0, 255, "of a TCP state")]


def _addresses(operator: Operator, text: str, kind: ArgumentType) -> list[Value]:
    _, slash, prefix = text.partition("/")
    allowed = "an IPv4 or IPv6 address, or a network as 10.0.0.0/8"
    if "%" in text or (slash and not (prefix.isascii() and prefix.isdecimal())):
        raise _BadValue(f"{quoted(text)} is not an IP address or network", allowed)
    try:
        network: IPv4Network | IPv6Network = ip_network(text, strict=False)
    except ValueError as error:
        raise _BadValue(f"{quoted(text)} is not an IP address or network", allowed) from error
    return [network]


# --- texts and files --------------------------------------------------------------------------


def _texts(operator: Operator, text: str, kind: ArgumentType) -> list[Value]:
    value = text.encode(errors="surrogatepass")
    if kind is ArgumentType.STRING:
        value = value.rstrip(b"\0")
    longest, shortest = _LENGTHS.get(operator, (MAX_EQUAL_BYTES, 0))
    if len(value) > longest:
        raise _BadValue(
            f"a text of {len(value)} bytes is too long for {operator.value}",
            f"at most {longest} bytes",
        )
    if len(value) < shortest:
        raise _BadValue(f"an empty text says nothing to {operator.value}", "at least one byte")
    if b"\0" in value and kind not in (ArgumentType.CHAR_BUF, ArgumentType.SOCKADDR_UN):
        raise _BadValue(f"a text with a NUL never matches an argument of type {kind.value}")
    if operator in _BELOW:
        value = value.rstrip(b"/") or b"/"
    return [value]


def doubtful_path(operator: Operator, text: str, kind: ArgumentType) -> bool:
    """Return whether no path equals a text, or begins with it."""
    rooted = TYPES[kind].family is Family.PATH and operator in _ROOTED
    if not text:
        return rooted and operator in (Operator.EQUAL, Operator.NOT_EQUAL)
    return rooted and not text.startswith("/")


_LENGTHS = {
    Operator.PREFIX: (MAX_PREFIX_BYTES, 0),
    Operator.NOT_PREFIX: (MAX_PREFIX_BYTES, 0),
    Operator.BELOW: (MAX_BELOW_BYTES, 1),
    Operator.NOT_BELOW: (MAX_BELOW_BYTES, 1),
    Operator.POSTFIX: (MAX_POSTFIX_BYTES, 1),
    Operator.NOT_POSTFIX: (MAX_POSTFIX_BYTES, 1),
    Operator.SUBSTRING: (MAX_SUBSTRING_BYTES, 1),
    Operator.SUBSTRING_IGNORE_CASE: (MAX_SUBSTRING_BYTES, 1),
}


def _file_types(operator: Operator, text: str, kind: ArgumentType) -> list[Value]:
    if text not in FILE_TYPES:
        raise _BadValue(
            f"{quoted(text)} is not a file type{suggestion(text, FILE_TYPES)}",
            ", ".join(FILE_TYPES),
        )
    return [FILE_TYPES[text]]


def _none(operator: Operator, text: str, kind: ArgumentType) -> list[Value]:
    return []  # ignored, as in Tetragon


_READERS: dict[Operands, Callable[[Operator, str, ArgumentType], list[Value]]] = {
    Operands.NUMBERS: _numbers,
    Operands.RANGES: _ranges,
    Operands.MAP: _map,
    Operands.TEXTS: _texts,
    Operands.FILE_TYPES: _file_types,
    Operands.ADDRESSES: _addresses,
    Operands.PORTS: _ports,
    Operands.PROTOCOLS: _protocols,
    Operands.FAMILIES: _families,
    Operands.STATES: _states,
    Operands.NONE: _none,
}
