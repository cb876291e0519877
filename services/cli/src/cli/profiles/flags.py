"""Flags that the commands of ``tetra profile`` share."""

from __future__ import annotations

import click

from cli.errors import UsageError
from cli.flags import Flag, repeated
from cli.node_names import NODES
from cli.values import TIME, Value

_NAMES = "EXECUTABLE|UNIT|CONTAINER"


def _subject(text: str) -> str:
    if not text or text.isspace():
        raise UsageError("the name is empty")
    return text


SUBJECT = Value(_NAMES, _subject, example="/usr/sbin/nginx")


def subject_argument() -> click.Argument:
    """Return the argument that names whose profile it is."""
    return click.Argument(["subject"], type=SUBJECT, metavar=_NAMES)


def subjects_argument() -> click.Argument:
    """Return the argument that names one or more subjects, for one profile of all."""
    return click.Argument(
        ["subject"], type=SUBJECT, metavar=f"{_NAMES}...", nargs=-1, required=True
    )


def window_flags() -> list[Flag]:
    """Return the flags for the part of the stream."""
    return [
        Flag("--since", type=TIME, help="begin at a time: 7d, 14:30 [default: the whole stream]"),
        repeated("--node", type=NODES, help="only events of this node"),
    ]
