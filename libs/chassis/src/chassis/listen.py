"""Checks addresses before gRPC binds them, so that errors name the cause."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from contextlib import suppress
from pathlib import Path

from chassis.errors import ListenError

DEFAULT_PORT = 54321
UNIX_MODE = 0o660
_LISTEN = "0A"  # include/net/tcp_states.h: TCP_LISTEN


def parse(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``, ``[host]:port`` or ``host``."""
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdecimal() or int(port) > 65535:
        raise ListenError(f"listen: {address}: not a port: {port!r}")
    return host, int(port)


def is_unix(address: str) -> bool:
    """Return whether the address is a path."""
    return address.startswith("unix:")


def is_loopback(address: str) -> bool:
    """Return whether only this host can reach the address."""
    return is_unix(address) or all(
        ipaddress.ip_address(host.partition("%")[0]).is_loopback for host, _ in _resolve(address)
    )


def check(address: str) -> None:
    """Raise `ListenError` if the address cannot be listened on, with its holder if known."""
    if is_unix(address):
        _check_unix(Path(address.removeprefix("unix:").removeprefix("//")))
        return
    last: OSError | None = None
    free = 0
    for host, port in _resolve(address):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
            free += 1
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ListenError(f"listen: {address}: in use{_holder(port)}") from None
            last = error  # such as ::1 on a host without IPv6
    if not free and last is not None:
        raise ListenError(f"listen: {address}: {(last.strerror or str(last)).lower()}")


def _resolve(address: str) -> list[tuple[str, int]]:
    host, port = parse(address)
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ListenError(f"listen: {address}: {(error.strerror or str(error)).lower()}") from None
    return [(str(where[0]), port) for *_, where in found]


def _check_unix(path: Path) -> None:
    if not path.parent.is_dir():
        raise ListenError(f"listen: {path}: no such folder")
    if not path.is_socket():
        if path.exists():
            raise ListenError(f"listen: {path}: exists and is not a socket: remove it")
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()  # left behind
            return
    raise ListenError(f"listen: {path}: in use")


def _holder(port: int) -> str:
    inodes = {f"socket:[{inode}]" for inode in _listening(port)}
    for fd in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        with suppress(OSError):
            if os.readlink(fd) in inodes:
                pid = fd.parts[2]
                name = Path("/proc", pid, "comm").read_text().strip()
                return f" by process {pid} ({name})"
    return " by a process of another user"


# Inodes of the sockets that listen on a port, from /proc/net/tcp{,6}.
def _listening(port: int) -> list[str]:
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                    found.append(words[9])
    return found
