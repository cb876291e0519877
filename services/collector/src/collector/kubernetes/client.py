"""Requests to the API server: get, change, and watch what changes."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

from collector.errors import KubernetesError
from collector.kubernetes.access import Access

Resource = dict[str, Any]

GONE = 410  # the version of a list or watch is no longer known
TIMEOUT_S = 15.0
_WATCH_S = 300  # the server ends a watch then, and the client continues where it ended
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class ApiClient:
    """One API server; a connection for each request."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def get(self, path: str, **query: str) -> Resource:
        """Return a resource or a list; raise `KubernetesError`."""
        return self._call("GET", path, query)

    def patch(self, path: str, change: Mapping[str, Any]) -> Resource:
        """Merge a change into a resource; raise `KubernetesError`."""
        return self._call("PATCH", path, {}, json.dumps(change).encode())

    def watch(self, path: str, version: str, **query: str) -> Iterator[Resource]:
        """Return events since ``version``, until the server ends the watch.

        This call, and the iterator, raise `KubernetesError`; its status is `GONE` where the version
        is too old.
        """
        query |= {
            "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_S),
        }  # fmt: skip
        connection = self._connection(_WATCH_S + TIMEOUT_S)
        try:
            answer = self._answer(connection, "GET", path, query)
        except KubernetesError:
            connection.close()
            raise
        return self._events(connection, answer, path)

    def _events(
        self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, path: str
    ) -> Iterator[Resource]:
        with closing(connection):
            try:
                while line := answer.readline():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _refused(path, event["object"])
                    yield event
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise KubernetesError(f"kubernetes: watch {path}: {error!r}") from None

    def _call(
        self, method: str, path: str, query: Mapping[str, str], body: bytes | None = None
    ) -> Resource:
        with closing(self._connection(TIMEOUT_S)) as connection:
            answer = self._answer(connection, method, path, query, body)
            try:
                found: Resource = json.loads(answer.read())
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise KubernetesError(f"kubernetes: {method.lower()} {path}: {error!r}") from None
            return found

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        access = self._access
        if access.tls is None:
            return http.client.HTTPConnection(access.host, access.port, timeout=timeout_s)
        return http.client.HTTPSConnection(
            access.host, access.port, timeout=timeout_s, context=access.tls
        )

    def _answer(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None = None,
    ) -> http.client.HTTPResponse:
        step = f"kubernetes: {method.lower()} {path}"
        try:
            headers = self._access.headers() | {"Accept": "application/json"}
            if body is not None:
                headers["Content-Type"] = "application/merge-patch+json"
            # The address may be that of a machine that no longer exists: do not wait 300 s for it.
            timeout_s, connection.timeout = connection.timeout, TIMEOUT_S
            connection.connect()
            connection.timeout = timeout_s
            connection.sock.settimeout(timeout_s)
            for option, value in _KEEPALIVE:
                connection.sock.setsockopt(socket.IPPROTO_TCP, option, value)
            target = f"{path}?{urlencode(query)}" if query else path
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            if answer.status < 300:
                return answer
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise KubernetesError(f"{step}: {error!r}") from None
        try:
            status = json.loads(text)
        except ValueError:
            status = {}
        raise _refused(path, {"code": answer.status} | (status if isinstance(status, dict) else {}))


def _refused(path: str, status: Mapping[str, Any]) -> KubernetesError:
    code, message = int(status.get("code") or 0), status.get("message") or "no reason given"
    return KubernetesError(f"kubernetes: {path}: status {code}: {message}", status=code)
