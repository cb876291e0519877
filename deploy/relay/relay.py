"""Carry TCP connections from one place to another; knows nothing of what is in them.

Two of these are the way from this host to the gateways of a Compose stack:

    port:  local:54321          -> unix:/run/relay/socket    in the host's network
    relay: unix:/run/relay/socket -> dns:gateway:54321       in the stack's network

A published port cannot do it: it belongs to one container, so a second gateway would not start,
and Docker opens it with packet rewriting that neighbours on the host's network can get through.
``local`` is the loopback interface and the bridges of Docker, each socket tied to its interface:
the kernel itself refuses the port to everybody else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import random
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator

_BRIDGE = re.compile(r"docker\d+|br-[0-9a-f]{12}")  # as Docker names them
_RESCAN_S = 2.0  # a new Docker network is served after this
_CONNECT_TIMEOUT_S = 1.0
_CHUNK_BYTES = 256 * 1024
_SIOCGIFADDR = 0x8915


def log(level: str, event: str, **facts: object) -> None:
    """Print one JSON line, as the services do."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    line = {**facts, "event": event, "level": level, "timestamp": f"{stamp}Z"}
    print(json.dumps(line), file=sys.stderr, flush=True)


def bridges() -> dict[str, str]:
    """Return the IPv4 address of each Docker bridge by its name."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            if _BRIDGE.fullmatch(name):
                with contextlib.suppress(OSError):  # it has no address, or has just gone
                    request = struct.pack("256s", name.encode())
                    answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
                    found[name] = socket.inet_ntoa(answer[20:24])
    return found


def bind_tcp(interface: str, address: str, port: int) -> socket.socket:
    """Return a socket that only what comes in through ``interface`` reaches."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # No capability is needed since "net: core: enable SO_BINDTODEVICE for non-root users"
        # (in v5.7).
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        listener.bind((address, port))
    except OSError:
        listener.close()
        raise
    return listener


async def connections(target: str) -> AsyncIterator[tuple[str, int | str]]:
    """Yield the places behind ``target``, in random order: ("unix", path) or (address, port)."""
    kind, _, rest = target.partition(":")
    if kind == "unix":
        yield "unix", rest
        return
    host, _, port = rest.rpartition(":")
    loop = asyncio.get_running_loop()
    # Asked anew for each connection: Docker's name server has the running containers only.
    found = await loop.getaddrinfo(host, int(port), family=socket.AF_INET, type=socket.SOCK_STREAM)
    addresses = sorted({str(entry[4][0]) for entry in found})
    random.shuffle(addresses)
    for address in addresses:
        yield address, int(port)


async def dial(target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first place that answers; raise `OSError` if none does."""
    error: OSError = ConnectionRefusedError(f"{target}: nothing there")
    async for place, port in connections(target):
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                if place == "unix":
                    return await asyncio.open_unix_connection(str(port), limit=_CHUNK_BYTES)
                return await asyncio.open_connection(place, int(port), limit=_CHUNK_BYTES)
        except OSError as cause:  # TimeoutError is one
            error = cause
    raise error


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, and pass the end on."""
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


class Relay:
    """Accepts on sockets, one connection to the target for each connection."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._reachable = True

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection; closes both ends when either breaks."""
        with contextlib.closing(writer):
            try:
                far_reader, far_writer = await dial(self._target)
            except OSError as error:
                if self._reachable:
                    log("warning", "target unreachable", target=self._target, error=str(error))
                self._reachable = False
                return
            self._reachable = True
            with contextlib.closing(far_writer), contextlib.suppress(OSError, ExceptionGroup):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(copy(reader, far_writer))
                    tasks.create_task(copy(far_reader, writer))

    async def serve_unix(self, path: str) -> None:
        """Accept on a socket file, which any user of the folder may open."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        server = await asyncio.start_unix_server(self.accept, path, limit=_CHUNK_BYTES)
        os.chmod(path, 0o666)
        log("info", "serving", address=f"unix:{path}", target=self._target)
        await server.serve_forever()

    async def serve_local(self, port: int) -> None:
        """Accept on loopback and on each of Docker's bridges, as they come and go."""
        servers: dict[tuple[str, str], asyncio.Server] = {}
        refused: set[tuple[str, str]] = set()
        while True:
            wanted = {("lo", "127.0.0.1"), *bridges().items()}
            for place in [place for place in servers if place not in wanted]:
                servers.pop(place).close()
            for interface, address in sorted(wanted - servers.keys()):
                try:
                    listener = bind_tcp(interface, address, port)
                except OSError as error:
                    if interface == "lo":
                        raise SystemExit(
                            f"tetra-relay: error: listen on {address}:{port}: "
                            f"{(error.strerror or str(error)).lower()}"
                        ) from None
                    if (interface, address) not in refused:
                        refused.add((interface, address))
                        log("warning", "not serving", interface=interface, error=str(error))
                    continue
                servers[interface, address] = await asyncio.start_server(
                    self.accept, sock=listener, limit=_CHUNK_BYTES
                )
                log("info", "serving", address=f"{address}:{port}", interface=interface)
            await asyncio.sleep(_RESCAN_S)


async def run(listen: str, target: str) -> None:
    """Relay until SIGTERM or SIGINT."""
    relay = Relay(target)
    kind, _, place = listen.partition(":")
    task = asyncio.ensure_future(
        relay.serve_unix(place) if kind == "unix" else relay.serve_local(int(place))
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def check(listen: str) -> int:
    """Return 0 if a relay that listens there answers, else 1."""
    kind, _, place = listen.partition(":")
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_TIMEOUT_S)
        return int(bool(probe.connect_ex(place if kind == "unix" else ("127.0.0.1", int(place)))))


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="tetra-relay", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("listen", help="local:PORT or unix:PATH")
    parser.add_argument("target", help="dns:HOST:PORT or unix:PATH", nargs="?")
    parser.add_argument("--check", action="store_true", help="only tell whether one is there")
    arguments = parser.parse_args()
    if arguments.check:
        return check(arguments.listen)
    if arguments.target is None:
        parser.error("target is missing")
    asyncio.run(run(arguments.listen, arguments.target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
