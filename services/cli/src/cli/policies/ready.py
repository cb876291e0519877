"""Names and parameters of ready-made policies on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from cli.errors import UsageError
from cli.flags import Flag, repeated
from cli.values import Value


def _names(ctx: click.Context) -> Iterable[str]:
    from readymade import NAMES

    return NAMES


def _known(text: str) -> str:
    from readymade import ReadyError, load

    try:
        return load(text).name
    except ReadyError as error:
        raise UsageError(str(error)) from None


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{text!r} is not NAME=VALUE")
    return key, value


_NAME = Value("NAME", _known, example="files", known=_names)
_SETTING = Value("NAME=VALUE", _pair, example="paths=/etc,/srv")


def names_argument() -> click.Argument:
    """Return the argument NAME..., at least one."""
    return click.Argument(["name"], type=_NAME, metavar="NAME...", nargs=-1, required=True)


def set_flag() -> Flag:
    """Return ``--set``."""
    return repeated("--set", type=_SETTING, help="value of a parameter: paths=/etc,/srv")


def rendered(names: Sequence[str], given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the documents of the policies; raise `UsageError` for a bad parameter."""
    from readymade import ReadyError, load, render

    settings = dict(given)
    policies = {name: load(name) for name in names}
    known = {key for ready in policies.values() for key in ready.parameters}
    for key in settings:
        if key not in known:
            shown = " or ".join(policies)
            example = f"--set {next(iter(sorted(known)), 'paths')}=..."
            raise UsageError(f"--set: {shown} has no parameter {key!r}", example)
    try:
        return {
            name: render(ready, {k: v for k, v in settings.items() if k in ready.parameters})
            for name, ready in policies.items()
        }
    except ReadyError as error:
        raise UsageError(f"--set: {error}", "--set paths=/etc,/srv") from None
