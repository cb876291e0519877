"""``-o lifecycle``, the default output: the life cycle of processes, one line an event.

    🚀 process 101708: root: /usr/sbin/iptables -L
    💥 exit 101708: root: /usr/sbin/iptables -L 9

After the arguments: the outcome, then ``[container]`` or ``[namespace/pod]``, then ``@node`` once
events came from a second node. What each kind of event shows is in `cli.renderers.kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from cli.processes import place_of, user_of
from cli.renderers.kinds import kind_of
from cli.renderers.kinds.base import Line
from cli.terminal import Fit, cell_count, visible
from eventjson.times import rfc3339_nanos
from tetragon.events_pb2 import GetEventsResponse

_EMOJI_COLUMNS = 3  # two for the sign, one for the blank behind it

# What a line that is too long loses first. A text keeps the mark that it is cut, if it can.
_CUT_ORDER = ("arguments", "detail", "binary", "node", "place", "user", "outcome", "time", "word")


class Palette:
    """Escape sequences for the parts of a line; all empty without colour."""

    def __init__(self, *, colour: bool) -> None:
        """Choose sequences, or none."""

        def code(number: int) -> str:
            return f"\x1b[{number}m" if colour else ""

        self.labels = {"": "", "start": code(32), "end": code(33), "bad": code(31)}
        self.user, self.binary = code(36), code(1)
        self.bad, self.place, self.dim = code(31), code(34), code(2)
        self.reset = code(0)


class _Texts(NamedTuple):
    """The printable texts of one line, each without what stands around it."""

    time: str
    emoji: str
    colour: str  # of emoji and word: a key of `Palette.labels`
    word: str
    pid: str
    user: str
    binary: str
    arguments: str
    detail: str
    outcome: str
    place: str
    node: str


class LifecycleRenderer:
    """``-o lifecycle``: who started what, and how it ended."""

    def __init__(
        self,
        *,
        colour: bool = False,
        timestamps: bool = False,
        show_node: bool = False,
        emoji: bool = True,
        width: Callable[[], int | None] = lambda: None,
    ) -> None:
        """``width`` returns how many columns a line may have; None is any number."""
        self._palette = Palette(colour=colour)
        self._plain = Palette(colour=False)
        self._timestamps = timestamps
        self._show_node = show_node
        self._emoji = emoji
        self._width = width
        self._fit = Fit(unicode=emoji)
        self._first_node: str | None = None

    def render(self, events: Iterable[GetEventsResponse]) -> str:
        """Return a line for each event."""
        width = self._width()
        lines = []
        for event in events:
            line = kind_of(event.WhichOneof("event")).lifecycle(event)
            texts = self._texts(event, line)
            if width is not None:
                texts = self._cut(_Texts(*texts), width)
            lines.append(_text(self._palette, *texts))
        return "".join(lines)

    def finish(self) -> str:
        """Return nothing: each line is complete."""
        return ""

    def _texts(self, event: GetEventsResponse, line: Line) -> tuple[str, ...]:
        """Return the members of `_Texts`; a plain tuple, because this runs for every event."""
        emoji, word, process, detail, outcome, colour = line
        pid = user = binary = arguments = place = ""
        if process is not None:
            pid, user = str(process.pid.value), visible(user_of(process))
            binary, place = visible(process.binary) or "?", place_of(process)
            place = place and visible(place)
            # Quoting puts a space before a first argument that has one in it.
            arguments = visible(process.arguments).removeprefix(" ")
        return (
            rfc3339_nanos(event.time) if self._timestamps else "",
            emoji if self._emoji else "",
            colour,
            word,
            pid,
            user,
            binary,
            arguments,
            detail and visible(detail),
            outcome and visible(outcome),
            place,
            self._node(event.node_name),
        )

    def _node(self, node: str) -> str:
        if not self._show_node:
            if self._first_node is None:
                self._first_node = node
            if node == self._first_node:
                return ""
            self._show_node = True  # from the second node on, every line names its node
        return visible(node)

    def _cut(self, texts: _Texts, width: int) -> _Texts:
        """Return ``texts`` shortened to fit into ``width`` columns."""
        over = self._columns(texts) - width
        for name in _CUT_ORDER:
            if over <= 0:
                break
            text = getattr(texts, name)
            if text:
                room = max(cell_count(text) - over, 1)
                texts = texts._replace(**{name: self._fit(text, room)})
                over = self._columns(texts) - width
        return texts

    def _columns(self, texts: _Texts) -> int:
        if not texts.emoji:
            return cell_count(_text(self._plain, *texts)[:-1])
        # Terminals draw the signs of labels in two columns; tables of widths have one for some.
        return _EMOJI_COLUMNS + cell_count(_text(self._plain, *texts._replace(emoji=""))[:-1])


def _text(
    palette: Palette,
    time: str,
    emoji: str,
    colour: str,
    word: str,
    pid: str,
    user: str,
    binary: str,
    arguments: str,
    detail: str,
    outcome: str,
    place: str,
    node: str,
) -> str:
    """Return the line that the members of `_Texts` make, with its end."""
    reset = palette.reset
    line = f"{emoji} {word}" if emoji else word
    if colour:
        line = f"{palette.labels[colour]}{line}{reset}"
    if time:
        line = f"{palette.dim}{time}{reset} {line}"
    if pid:
        line += f" {pid}: {palette.user}{user}{reset}: {palette.binary}{binary}{reset}"
    if arguments:
        line += f" {arguments}"
    if detail:
        line += f" {detail}"
    if outcome:
        line += f" {palette.bad}{outcome}{reset}"
    if place:
        line += f" {palette.place}[{place}]{reset}"
    if node:
        line += f" {palette.dim}@{node}{reset}"
    return line + "\n"
