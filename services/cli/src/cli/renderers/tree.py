"""``-o tree``: each process under its parent, shown when the stream ends.

812: root: /usr/sbin/sshd -D (running)
└─ 900: alice: /bin/bash -l (running)
   ├─ 901: alice: /usr/bin/ls -l (exit 2, 3ms)
   └─ 902: alice: /usr/bin/sleep 1000 (SIGKILL, 1.2s)
"""

from __future__ import annotations

from collections.abc import Iterable

from cli.process_tree import Branches, ProcessTree
from cli.terminal import Fit, visible
from tetragon.events_pb2 import GetEventsResponse

_KEPT_ENDED = 100_000  # about 1 kB each
_LEAST_COLUMNS = 16  # for a process, however deep it is


class TreeRenderer:
    """``-o tree``: collects events and prints the tree at the end."""

    def __init__(
        self, *, colour: bool = False, unicode: bool = True, width: int | None = None
    ) -> None:
        self._tree = ProcessTree(keeps_ended=_KEPT_ENDED)
        self._branches = Branches.of(unicode=unicode)
        self._fit = Fit(unicode=unicode)
        self._width = width  # None: lines are not cut
        self._dim, self._reset = ("\x1b[2m", "\x1b[0m") if colour else ("", "")

    def render(self, events: Iterable[GetEventsResponse]) -> str:
        """Add the events; the tree is complete only at the end."""
        for event in events:
            self._tree.add(event)
        return ""

    def finish(self) -> str:
        """Return the tree; with several nodes, a line with the name before each."""
        several = len({root.node for root in self._tree.roots}) > 1
        lines = []
        node = None
        for entry, lasts in self._tree.walk():
            if several and len(lasts) == 1 and entry.node != node:
                node = entry.node
                lines.append(f"@{visible(node)}\n")
            stem = self._branches.before(lasts)
            state = f"({entry.state()})"
            text = entry.text
            if self._width is not None:
                room = self._width - len(stem) - len(state) - 1
                text = self._fit(text, max(room, _LEAST_COLUMNS))
            dim, reset = self._dim, self._reset
            lines.append(f"{dim}{stem}{reset}{text} {dim}{state}{reset}\n")
        if self._tree.forgotten:
            lines.append(f"and {self._tree.forgotten} more that ended\n")
        return "".join(lines)
