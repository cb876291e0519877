"""The life cycle of processes, one line an event: the default output.

    🚀 process 101708: root: /usr/sbin/iptables -L
    💥 exit 101708: root: /usr/sbin/iptables -L 9

After the arguments: how it ended where that was not a plain 0, then ``[container]`` or
``[namespace/pod]``, then ``@node`` as soon as a second node was heard of.
"""

from __future__ import annotations

from collections.abc import Iterable

from cli.processes import end_of, place_of, user_of
from cli.terminal import visible
from cli.timestamps import rfc3339_nanos
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process

# Kinds that Tetragon has beside exec and exit; details name fields of the event.
_OTHER_KINDS = {
    "process_kprobe": ("❓", "kprobe", ("function_name",)),
    "process_tracepoint": ("⁉️", "tracepoint", ("subsys", "event")),
    "process_loader": ("🧬", "loader", ("path",)),
    "process_uprobe": ("🕵️", "uprobe", ("path", "symbol")),
    "process_usdt": ("🕵️", "usdt", ("path", "provider", "name")),
    "process_lsm": ("🔒", "lsm", ("function_name",)),
}


class Palette:
    """Escape sequences for the parts of a line; all empty without colour."""

    def __init__(self, *, colour: bool) -> None:
        def code(number: int) -> str:
            return f"\x1b[{number}m" if colour else ""

        self.start, self.end = code(32), code(33)
        self.user, self.binary, self.arguments = code(36), code(1), code(0)
        self.bad, self.place, self.dim = code(31), code(34), code(2)
        self.reset = code(0)


class LifecycleRenderer:
    """``-o lifecycle``: who started what, and how it ended."""

    def __init__(
        self,
        *,
        colour: bool = False,
        timestamps: bool = False,
        show_node: bool = False,
        emoji: bool = True,
    ) -> None:
        self._palette = Palette(colour=colour)
        self._timestamps = timestamps
        self._show_node = show_node
        self._emoji = emoji
        self._first_node: str | None = None

    def render(self, events: Iterable[GetEventsResponse]) -> str:
        """Return a line for each event."""
        palette = self._palette
        reset = palette.reset
        start = palette.start + ("🚀 " if self._emoji else "") + "process" + reset + " "
        end = palette.end + ("💥 " if self._emoji else "") + "exit" + reset + " "
        lines = []
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "process_exec":
                line = start + self._process(event.process_exec.process)
                tail = self._place(event.process_exec.process)
            elif kind == "process_exit":
                ended = event.process_exit
                line = end + self._process(ended.process)
                how = end_of(ended)
                if how:
                    line += f" {palette.bad}{visible(how)}{reset}"
                tail = self._place(ended.process)
            else:
                line, tail = self._other(event, kind)
            lines.append(f"{self._time(event)}{line}{tail}{self._node(event.node_name)}\n")
        return "".join(lines)

    def finish(self) -> str:
        """Return nothing: each line stands alone."""
        return ""

    def _process(self, process: Process) -> str:
        palette = self._palette
        reset = palette.reset
        text = (
            f"{process.pid.value}: {palette.user}{visible(user_of(process))}{reset}: "
            f"{palette.binary}{visible(process.binary) or '?'}{reset}"
        )
        # Quoting puts a space before a first argument that has one in it.
        arguments = process.arguments.removeprefix(" ")
        return f"{text} {visible(arguments)}" if arguments else text

    def _place(self, process: Process) -> str:
        place = place_of(process)
        return f" {self._palette.place}[{visible(place)}]{self._palette.reset}" if place else ""

    def _other(self, event: GetEventsResponse, kind: str | None) -> tuple[str, str]:
        if kind in _OTHER_KINDS:
            emoji, word, fields = _OTHER_KINDS[kind]
            body = getattr(event, kind)
            details = " ".join(visible(getattr(body, name)) for name in fields)
            line = f"{word} {self._process(body.process)} {details}"
            tail = self._place(body.process)
        elif kind == "process_throttle":
            action = "start" if event.process_throttle.type == 1 else "stop"
            emoji, line = "🧬", f"throttle {action} {visible(event.process_throttle.cgroup)}"
            tail = ""
        elif kind == "rate_limit_info":
            dropped = event.rate_limit_info.number_of_dropped_process_events
            emoji, line, tail = "🛑", f"rate limit: {dropped} events dropped", ""
        else:
            emoji, line, tail = "❓", "event of an unknown kind", ""
        return (f"{emoji} {line}" if self._emoji else line), tail

    def _time(self, event: GetEventsResponse) -> str:
        if not self._timestamps:
            return ""
        return f"{self._palette.dim}{rfc3339_nanos(event.time)}{self._palette.reset} "

    def _node(self, node: str) -> str:
        if not self._show_node:
            if self._first_node is None:
                self._first_node = node
            if node == self._first_node:
                return ""
            self._show_node = True  # from here on every line says where
        return f" {self._palette.dim}@{visible(node)}{self._palette.reset}"
