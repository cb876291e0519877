"""What a kind of event offers to the outputs, and the general forms of a kind without its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from cli.processes import parent_of, process_of
from tetragon.events_pb2 import GetEventsResponse
from tetragon.tetragon_pb2 import Process

if TYPE_CHECKING:
    from cli.renderers.pen import Pen


class TreeView(Protocol):
    """What a kind may do to the tree of processes."""

    def start(self, event: GetEventsResponse, process: Process, parent: Process | None) -> None:
        """Add a process."""

    def end(
        self, event: GetEventsResponse, process: Process, parent: Process | None, how: str
    ) -> None:
        """End a process; ``how`` is what is shown of its end."""

    def note(
        self, event: GetEventsResponse, process: Process, parent: Process | None, kind: str
    ) -> None:
        """Count an event that neither starts nor ends its process."""


class TopView(Protocol):
    """What a kind may do to the figures of ``tetra top``."""

    def start(self, event: GetEventsResponse, process: Process, parent: Process) -> None:
        """Count a start."""

    def end(self, event: GetEventsResponse, process: Process) -> None:
        """Count an end."""

    def note(self, event: GetEventsResponse) -> None:
        """Count an event that neither starts nor ends a process."""

    def access(self, group: str, name: str, *, failed: bool) -> None:
        """Count an access to a file or a peer."""


Colour = Literal["", "start", "end", "bad"]


class Line(NamedTuple):
    """One line of ``-o lifecycle``. The renderer escapes and colours these texts."""

    emoji: str
    word: str
    process: Process | None = None
    detail: str = ""  # after the process and its arguments
    outcome: str = ""  # after that, in red: a status, a signal, an action
    colour: Colour = ""  # of emoji and word


# What a kind returns: a `Line`, or its members alone, which take a third of the time to make.
LineMembers = tuple[str, str, Process | None, str, str, Colour]


def name_of(event: GetEventsResponse) -> str:
    """Return the kind's name without ``process_``; for an unknown one its field number."""
    kind = event.WhichOneof("event")
    if kind is not None:
        return kind.removeprefix("process_")
    from google.protobuf.unknown_fields import UnknownFieldSet

    unknown = UnknownFieldSet(event)
    numbers = [str(unknown[index].field_number) for index in range(len(unknown))]
    return f"unknown event {','.join(numbers)}".rstrip()


def lifecycle(event: GetEventsResponse) -> Line:
    """Return the name of the kind and the process, if the event has one."""
    return Line("❓", name_of(event), process_of(event))


def compact(event: GetEventsResponse, pen: Pen) -> str:
    """Return the name of the kind, with node and binary if the event has a process."""
    process = process_of(event)
    if process is None:
        return f"{pen.label('❓', name_of(event))} {pen.quote(event.node_name)}\n"
    return pen.line(event, process, "❓", name_of(event))


def tree(tree: TreeView, event: GetEventsResponse) -> None:
    """Count the event at its process."""
    process = process_of(event)
    if process is not None:
        tree.note(event, process, parent_of(event), name_of(event))


def top(model: TopView, event: GetEventsResponse) -> None:
    """Count the event among those that neither start nor end a process."""
    model.note(event)


@dataclass(frozen=True, slots=True)
class Kind:
    """One function per output. An output that is left out has the general form."""

    lifecycle: Callable[[GetEventsResponse], LineMembers] = lifecycle
    compact: Callable[[GetEventsResponse, Pen], str] = compact
    tree: Callable[[TreeView, GetEventsResponse], None] = tree
    top: Callable[[TopView, GetEventsResponse], None] = top
    # Fields of --format that this kind alone has.
    words: Mapping[str, Callable[[GetEventsResponse], str]] = field(default_factory=dict)
