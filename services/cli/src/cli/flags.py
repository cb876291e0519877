"""Flags on click: in sections of the help text, as switches, repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from cli.values import BOOL, Choice


class Flag(click.Option):
    """A flag, in a section of the help text."""

    def __init__(self, *names: str, section: str = "flags", **settings: Any) -> None:
        """``settings`` are those of `click.Option`."""
        super().__init__(list(names), **settings)
        self.section = section


def switch(*names: str, help: str, default: bool = False, **settings: Any) -> Flag:
    """Return a flag without a value, or with ``=true`` or ``=false``, as in Go."""
    return Flag(
        *names,
        help=help,
        type=BOOL,
        default=default,
        is_flag=False,
        flag_value=True,
        metavar="",
        **settings,
    )


def repeated(*names: str, **settings: Any) -> Flag:
    """Return a flag that may repeat; values that are lists become one list."""

    def joined(ctx: click.Context, param: click.Parameter, values: Sequence[Any]) -> list[Any]:
        lists = (value if isinstance(value, list) else [value] for value in values or ())
        return [each for values in lists for each in values]

    return Flag(*names, multiple=True, callback=joined, **settings)


def in_section(section: str, *flags: Flag) -> tuple[Flag, ...]:
    """Return ``flags``, shown together in the help text."""
    for flag in flags:
        flag.section = section
    return flags


def colour_flag() -> Flag:
    """Return ``--color``."""
    return Flag(
        "--color",
        type=Choice("auto", "always", "never"),
        default="auto",
        help="when to use colours [default: auto]",
    )


def output_flag(*forms: str, more: str = "") -> Flag:
    """Return ``--output`` with its forms, the first of which is the default."""
    help = f"output format{more} [default: {forms[0]}]"
    return Flag("-o", "--output", type=Choice(*forms), default=forms[0], help=help)
