"""``tetra help``."""

from __future__ import annotations

import argparse

HELP = "help on tetra or on a command"
DESCRIPTION = """Print help, the same as with --help.

examples:
  tetra help
  tetra help getevents
"""
USAGE = "[COMMAND] "


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command to be explained."""
    parser.add_argument("topic", nargs="?", metavar="COMMAND", help="command to explain")


def run(args: argparse.Namespace) -> int:
    """Print the help."""
    from cli.main import make_parser

    make_parser().parse_args([args.topic, "--help"] if args.topic else ["--help"])
    return 0
