"""Whether a port is free, and which process listens on it."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from embedded.errors import EmbeddedError

_LISTEN = "0A"  # TCP_LISTEN in include/net/tcp_states.h, as /proc/net/tcp prints it


def require_free(host: str, port: int, setting: str) -> None:
    """Raise `EmbeddedError` if ``host:port`` cannot be listened on; name the process there."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise EmbeddedError(
            f"listen: {host}:{port}: {(error.strerror or '').lower()} (setting {setting})"
        ) from None
    for family, kind, proto, _, address in found:
        try:
            with socket.socket(family, kind, proto) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
                probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) and len(found) > 1:
                continue  # localhost is also ::1 in /etc/hosts where IPv6 is off
            cause = os.strerror(error.errno or 0).lower()
            if error.errno == errno.EADDRINUSE:
                cause = f"port {port} is in use by {holder(port) or 'another process'}"
            raise EmbeddedError(f"listen: {host}:{port}: {cause} (setting {setting})") from None


def holder(port: int) -> str | None:
    """Return "name (pid)" of the process that listens on ``port``, if /proc shows it."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
            if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{inode}]")
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if not inodes.isdisjoint(_opened(process)):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue  # it has ended, or may not be read
    return None


def _opened(process: Path) -> Iterator[str]:
    """Yield what each file descriptor refers to; one that is closed meanwhile is left out."""
    for descriptor in (process / "fd").iterdir():
        with suppress(FileNotFoundError):
            yield os.readlink(descriptor)
