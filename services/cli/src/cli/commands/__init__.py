"""Sub-commands, one module each: ``HELP`` and ``DESCRIPTION``, ``configure`` and ``run``.

``USAGE`` (words behind the name) and ``ALIASES`` are optional. ``configure(parser)`` declares the
flags, ``run(args)`` does the work and returns the exit code. Modules import what is slow (gRPC,
messages, the terminal library) inside ``run``, so that ``tetra version`` does not pay for
``tetra top``.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Protocol, cast

NAMES = (
    "getevents",
    "tree",
    "top",
    "nodes",
    "verify",
    "status",
    "info",
    "version",
    "loglevel",
    "doctor",
    "completion",
    "help",
)


class Command(Protocol):
    """What each module here has."""

    HELP: str  # one line for the list of commands
    DESCRIPTION: str  # the help text, with examples

    @staticmethod
    def configure(parser: argparse.ArgumentParser) -> None:
        """Declare the flags."""

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Do the work; return the exit code."""


def load(name: str) -> Command:
    """Return the sub-command called ``name``."""
    return cast(Command, import_module(f"cli.commands.{name}"))
