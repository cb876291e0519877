"""``-o lifecycle``, the default output: the life cycle of processes, one line an event.

    🚀 process 101708: root: /usr/sbin/iptables -L
    💥 exit 101708: root: /usr/sbin/iptables -L 9

After the arguments: the outcome, then ``[container]`` or ``[namespace/pod]``, then ``@node`` once
events came from a second node. What each kind of event shows is in `cli.renderers.kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from cli.processes import count_text, place_of, user_of
from cli.renderers.kinds import kind_of
from cli.renderers.kinds.base import LineMembers
from cli.terminal import Fit, cell_count, visible
from eventjson.times import rfc3339_nanos
from tetragon.events_pb2 import GetEventsResponse

_EMOJI_COLUMNS = 3  # two for the sign, one for the blank behind it

# The order in which parts of a long line are shortened. A text keeps the mark that it is cut, if it
# can.
_CUT_ORDER = ("arguments", "detail", "binary", "node", "place", "user", "outcome", "time", "word")


class Palette:
    """Escape sequences for the parts of a line; all empty without colour."""

    def __init__(self, *, colour: bool) -> None:
        """Choose sequences, or none."""

        def code(number: int) -> str:
            return f"\x1b[{number}m" if colour else ""

        self.labels = {"": "", "start": code(32), "end": code(33), "bad": code(31)}
        self.bad, self.place, self.dim = code(31), code(34), code(2)
        self.reset = code(0)
        self.before_user, self.before_binary = f": {code(36)}", f"{code(0)}: {code(1)}"


class _Texts(NamedTuple):
    """The printable texts of one line, each without its punctuation."""

    time: str
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
    """``-o lifecycle``: processes with user, command line and exit status."""

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
        self._colour = colour
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
            if event.HasField("aggregation_info") and (number := count_text(event)):
                left = None if width is None else max(width - len(number) - 1, 0)
                lines.append(f"{self._line(event, line, left)[:-1]} {number}\n")
            else:
                lines.append(self._line(event, line, width))
        return "".join(lines)

    def finish(self) -> str:
        """Return nothing: each line is complete."""
        return ""

    def _line(self, event: GetEventsResponse, line: LineMembers, width: int | None) -> str:
        emoji, word, process, detail, outcome, colour = line
        emoji = emoji + " " if self._emoji else ""
        time = rfc3339_nanos(event.time) if self._timestamps else ""
        node = event.node_name
        node = self._node(node) if self._show_node or node != self._first_node else ""
        pid = user = binary = arguments = place = ""
        if process is not None:
            pid, user = f"{process.pid.value}", user_of(process)
            binary, place = process.binary or "?", place_of(process)
            # Quoting puts a space before a first argument that has one in it.
            arguments = process.arguments.removeprefix(" ")
        if width is None and not self._colour:
            # Nearly all texts are printable as they are, and this runs for every event.
            tail = _tail(self._plain, pid, user, binary, arguments, detail, outcome, place, node)
            if tail.isprintable():
                return f"{time} {emoji}{word}{tail}\n" if time else f"{emoji}{word}{tail}\n"
        shown: Iterable[str] = (pid, user, binary, arguments, detail, outcome, place, node)
        if not "".join(shown).isprintable():
            shown = map(visible, shown)
        if width is not None:
            texts = _Texts(time, word, *shown)
            time, word, *shown = self._cut(texts, width - (_EMOJI_COLUMNS if emoji else 0))
        return f"{_head(self._palette, colour, emoji, time, word)}{_tail(self._palette, *shown)}\n"

    def _node(self, node: str) -> str:
        if not self._show_node:
            if self._first_node is None:
                self._first_node = node
                return ""
            self._show_node = True  # from the second node on, every line names its node
        return node

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
        # Without the sign: terminals draw it in two columns, tables of widths have one for some.
        time, word, *shown = texts
        return cell_count(_head(self._plain, "", "", time, word) + _tail(self._plain, *shown))


def _head(palette: Palette, colour: str, emoji: str, time: str, word: str) -> str:
    """Return the time, the sign with the blank behind it, and the name of the kind.

    ``colour``: of sign and name, a key of `Palette.labels`.
    """
    reset = palette.reset
    head = f"{palette.labels[colour]}{emoji}{word}{reset}" if colour else f"{emoji}{word}"
    return f"{palette.dim}{time}{reset} {head}" if time else head


def _tail(
    palette: Palette,
    pid: str,
    user: str,
    binary: str,
    arguments: str,
    detail: str,
    outcome: str,
    place: str,
    node: str,
) -> str:
    """Return what follows the name of the kind. Signs are not in it: a text with one is wide."""
    reset = palette.reset
    tail = f" {pid}{palette.before_user}{user}{palette.before_binary}{binary}{reset}" if pid else ""
    if arguments:
        tail += f" {arguments}"
    if detail:
        tail += f" {detail}"
    if outcome:
        tail += f" {palette.bad}{outcome}{reset}"
    if place:
        tail += f" {palette.place}[{place}]{reset}"
    if node:
        tail += f" {palette.dim}@{node}{reset}"
    return tail
