"""Which DNS server action DnsLookup asks."""

from __future__ import annotations

import ipaddress
from pathlib import Path

_RESOLV_CONF = Path("/etc/resolv.conf")
_DNS_PORT = 53


def system_resolver(file: Path = _RESOLV_CONF) -> str:
    """Return the first name server of the system; raise `OSError`."""
    for line in file.read_text().splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            return words[1]
    raise OSError(f"{file}: no nameserver")


def resolver_address(text: str) -> tuple[str, int]:
    """Return address and port of ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT; raise `ValueError`."""
    address, port = text, str(_DNS_PORT)
    if text.startswith("[") and "]:" in text:
        address, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        ipaddress.ip_address(address.partition("%")[0])
        if not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise ValueError(port)
    except ValueError:
        raise ValueError(f"{text!r}: expected ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT") from None
    return address, int(port)
