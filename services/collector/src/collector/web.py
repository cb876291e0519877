"""GetUrl's HTTP request: one time limit for all of it, and no access to addresses that are not
listed.

Written on sockets: the standard library's client has a time limit for each read only, so a server
that sends single bytes could delay it for days.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final
from urllib.parse import SplitResult, urlsplit

ANSWER_MAX = 1 << 16
RESOLVING_MAX = 4  # names at a time: a name server that does not answer holds a thread for longer
_PORTS: Final = {"http": 80, "https": 443}
# Addresses at which clouds serve a machine's credentials, in addition to link-local ones.
_METADATA: Final = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "fd00:ec2::254")))

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefusedError(OSError):
    """A name that is allowed resolves to addresses that are not, and to no others."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time at which the whole request has to be done."""

    at_s: float  # of time.monotonic()

    def left_s(self) -> float:
        """Return the time that is left; raise `TimeoutError`."""
        left = self.at_s - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        return left


@dataclass
class Web:
    """Sends requests to the hosts of an allow list."""

    hosts: frozenset[str]
    _resolving: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(RESOLVING_MAX)
    )

    def get(self, url: str, timeout_s: float) -> int:
        """Send a GET, discard the answer, return its status; raise `OSError` or `ValueError`."""
        deadline, parts = Deadline(time.monotonic() + timeout_s), urlsplit(url)
        host = parts.hostname or ""
        with self._connect(host, parts.port or _PORTS[parts.scheme], deadline) as plain:
            if parts.scheme == "http":
                return _exchange(plain, parts, deadline)
            plain.settimeout(deadline.left_s())
            with self._tls.wrap_socket(plain, server_hostname=host) as secured:
                return _exchange(secured, parts, deadline)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def _connect(self, host: str, port: int, deadline: Deadline) -> socket.socket:
        error: OSError = AddressRefusedError(f"{host}: no address that requests may go to")
        for address in self._resolve(host, deadline):
            if not self._allows(host, ipaddress.ip_address(address.partition("%")[0])):
                continue
            try:
                return socket.create_connection((address, port), deadline.left_s())
            except OSError as failed:
                error = failed
        raise error

    def _allows(self, host: str, address: IpAddress) -> bool:
        """Return whether a name may lead to an address: to special ones only if they are listed."""
        address = getattr(address, "ipv4_mapped", None) or address
        local = host == "localhost" and address.is_loopback
        return local or str(address) in self.hosts or not _is_special(address)

    def _resolve(self, host: str, deadline: Deadline) -> list[str]:
        """Return the addresses of a name, in time; raise `OSError`."""
        with suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        found: list[str] = []
        errors: list[OSError] = []

        def ask() -> None:
            try:
                rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                found.extend(str(row[4][0]) for row in rows)
            except (OSError, UnicodeError) as error:
                errors.append(OSError(str(error)))
            finally:
                self._resolving.release()

        if not self._resolving.acquire(timeout=deadline.left_s()):
            raise TimeoutError("too many names wait for a name server")
        # A daemon: it must not keep the collector from ending.
        thread = threading.Thread(target=ask, name="requests-name", daemon=True)
        thread.start()
        thread.join(deadline.left_s())
        if errors:
            raise errors[0]
        if not found:
            raise TimeoutError(f"{host}: no answer of the name server in time")
        return found


def _is_special(address: IpAddress) -> bool:
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address in _METADATA
    )


def _exchange(one: socket.socket, parts: SplitResult, deadline: Deadline) -> int:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = (
        f"GET {target} HTTP/1.1", f"Host: {parts.netloc}", "User-Agent: tetra-collector",
        "Accept: */*", "Connection: close", "", "",
    )  # fmt: skip
    one.settimeout(deadline.left_s())
    one.sendall("\r\n".join(lines).encode("ascii"))
    answer = b""
    while b"\n" not in answer:
        piece = _receive(one, deadline)
        answer += piece
        if not piece or len(answer) > ANSWER_MAX:
            break
    words = answer.partition(b"\n")[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise OSError("no answer of a web server")
    left = ANSWER_MAX - len(answer)
    with suppress(OSError):  # the status has arrived: the end of the answer does not matter
        while left > 0 and (piece := _receive(one, deadline)):
            left -= len(piece)
    return int(words[1])


def _receive(one: socket.socket, deadline: Deadline) -> bytes:
    one.settimeout(deadline.left_s())
    return one.recv(4096)
