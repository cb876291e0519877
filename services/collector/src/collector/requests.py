"""Requests that policies cause: GetUrl and DnsLookup.

They run in threads of their own, so the event loop never waits for a network. Everything is
bounded: hosts by an allow list, waiting requests by a queue, each request by a time and a size. The
answer is read and discarded, as in Tetragon; redirects are not followed. Events of the
collector itself cause none: a request would cause the next one.
"""

from __future__ import annotations

import queue
import secrets
import socket
import struct
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from collector.policies.check_requests import is_allowed
from collector.policies.table import Request, RequestKind
from collector.resolver import resolver_address, system_resolver
from collector.web import AddressRefusedError, Deadline, Web

TIMEOUT_S = 5.0  # a request, from its connection to the end of the answer
QUEUE_MAX = 256
THREADS = 2
_TYPE_A, _CLASS_IN, _RECURSE = 1, 1, 0x0100

log = structlog.get_logger()


@dataclass(slots=True)
class RequestStatistics:
    """Outcomes of requests."""

    sent: int = 0
    failed: int = 0  # no answer in time, or none at all
    dropped: int = 0  # the queue was full
    refused: int = 0  # the host, or each of its addresses, is not on the allow list


class Requests:
    """Sends requests in the background once it is open."""

    def __init__(
        self,
        hosts: frozenset[str],
        resolver: str = "",
        statistics: RequestStatistics | None = None,
    ) -> None:
        """``resolver``: a DNS server, see `resolver_address`; "": the system's."""
        self.hosts = hosts
        self.statistics = statistics or RequestStatistics()
        self._resolver = resolver
        self._web = Web(hosts)
        self._queue: queue.Queue[Request] = queue.Queue(QUEUE_MAX)
        self._open = False
        self._threads: list[threading.Thread] = []

    def open(self) -> None:
        """Accept requests from now on: those of replayed records were made before."""
        self._open = True

    def submit(self, request: Request) -> None:
        """Send a request soon; never waits."""
        if not self._open:
            return
        if not is_allowed(_host(request), self.hosts):
            self.statistics.refused += 1
            return
        try:
            self._queue.put_nowait(request)
        except queue.Full:
            self.statistics.dropped += 1
            return
        if len(self._threads) < THREADS:
            self._start()

    def _start(self) -> None:
        # Daemon threads: a request that hangs in a resolver must not prevent the collector from
        # ending.
        number = len(self._threads)
        thread = threading.Thread(target=self._run, name=f"requests-{number}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        while True:
            request = self._queue.get()
            try:
                if request.kind is RequestKind.URL:
                    self._web.get(request.target, TIMEOUT_S)
                else:
                    look_up(request.target, self._resolver or system_resolver(), TIMEOUT_S)
            except AddressRefusedError as error:
                self.statistics.refused += 1
                log.debug("request of a policy refused", target=request.target, error=str(error))
            except (OSError, ValueError) as error:
                self.statistics.failed += 1
                log.debug("request of a policy failed", target=request.target, error=str(error))
            else:
                self.statistics.sent += 1
            finally:
                self._queue.task_done()


def _host(request: Request) -> str:
    if request.kind is RequestKind.DNS:
        return request.target
    return urlsplit(request.target).hostname or ""


def look_up(name: str, resolver: str, timeout_s: float) -> None:
    """Send an A query over UDP and wait for the answer; raise `OSError`."""
    address, port = resolver_address(resolver)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    query_id = secrets.randbits(16)
    deadline = Deadline(time.monotonic() + timeout_s)
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(timeout_s)
        one.connect((address, port))
        one.send(dns_query(query_id, name))
        while True:
            one.settimeout(deadline.left_s())
            answer = one.recv(4096)
            if answer[:2] == query_id.to_bytes(2, "big"):
                return


def dns_query(query_id: int, name: str) -> bytes:
    """Return the datagram that asks for a name's IPv4 addresses: RFC 1035, 4."""
    labels = b"".join(
        len(label).to_bytes(1, "big") + label.encode("ascii")
        for label in name.rstrip(".").split(".")
    )
    head = struct.pack(">HHHHHH", query_id, _RECURSE, 1, 0, 0, 0)
    return head + labels + b"\0" + struct.pack(">HH", _TYPE_A, _CLASS_IN)
