"""A progress bar on stderr while the fleet carries out a change."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from typing import TextIO

from cli.address import ServerOptions
from cli.client import Client
from cli.errors import TetraError
from cli.policies.calls import PolicyCalls
from cli.words import counted
from tetra.v1.policies_pb2 import FleetPolicy, ListPoliciesRequest, PolicyRef

_CLEAR = "\r\x1b[K"
_BAR_CELLS = 24
_DELAY_S = 0.3  # shorter changes show no bar
_JOIN_S = 1.0


def bar(
    done: int, failed: int, total: int, *, unicode: bool = True, cells: int = _BAR_CELLS
) -> str:
    """Return a bar of fixed width: done, failed and waiting nodes."""
    full, bad, rest = ("█", "▒", "░") if unicode else ("#", "!", ".")
    filled = cells * done // total if total else cells
    wrong = min(cells - filled, -(-cells * failed // total)) if total else 0
    return full * filled + bad * wrong + rest * (cells - filled - wrong)


def progress_text(policy: FleetPolicy, *, unicode: bool = True) -> str:
    """Return the bar with its numbers."""
    if not policy.selected:
        return f"{policy.away} away" if policy.away else "no known node is selected"
    shown = bar(policy.done, policy.failed, policy.selected, unicode=unicode)
    text = f"{shown} {policy.done} of {counted(policy.selected, 'node')}"
    if policy.failed:
        text += f", {policy.failed} failed"
    if policy.away:
        text += f", {policy.away} away"
    return text


class Bar:
    """One line on a terminal that is written over; nothing elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self.enabled = self._stream.isatty()
        encoding = (self._stream.encoding or "").lower()
        self.unicode = encoding.replace("-", "") == "utf8"

    def show(self, text: str) -> None:
        """Write the line."""
        if self.enabled:
            self._stream.write(f"{_CLEAR}{text}")
            self._stream.flush()

    def clear(self) -> None:
        """Remove the line."""
        self.show("")


class Follower:
    """Shows a policy's progress on the fleet while a call changes it; a context manager.

    It has a connection of its own, and is silent where stderr is no terminal.
    """

    def __init__(self, options: ServerOptions, policy: PolicyRef) -> None:
        self._client = Client(options)
        self._policy = policy
        self._bar = Bar()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> None:
        if self._bar.enabled:
            self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._client.__exit__(*exc)
        if self._bar.enabled:
            self._thread.join(_JOIN_S)
            self._bar.clear()

    def _follow(self) -> None:
        if self._ended.wait(_DELAY_S):
            return
        request = ListPoliciesRequest(name=self._policy.name, domain=self._policy.domain)
        with suppress(TetraError):  # the call itself reports what is wrong
            for answer in PolicyCalls(self._client).stream(request):
                for found in answer.policies:
                    if self._ended.is_set():
                        return
                    if found.policy.namespace == self._policy.namespace:
                        self._bar.show(progress_text(found, unicode=self._bar.unicode))
