"""Errors of the command line, each as one line with what to do instead."""

from __future__ import annotations

import difflib

import click
from click.exceptions import BadOptionUsage, MissingParameter, NoSuchCommand, NoSuchOption

from cli.errors import UsageError
from cli.values import one_of

# Commands of Tetragon's own client that are not here.
_NOT_HERE = {
    **dict.fromkeys(("policytest", "pt"), "tetra tracingpolicy try runs a policy for a while"),
    **dict.fromkeys(("sensors", "policyfilter"), "tetra tracingpolicy list shows what is loaded"),
    "explain": "docs/policies.md describes documents, tetra tracingpolicy explain one of them",
    **dict.fromkeys(("bugtool", "probe"), "tetra doctor checks a host"),
    **dict.fromkeys(("debug", "dump", "cri", "cgtracker", "rthooks"), "not supported"),
}


def explained(error: click.UsageError, ctx: click.Context) -> UsageError:
    """Return what click found wrong as an error of ours."""
    path = ctx.command_path
    where = f"{path.partition(' ')[2]}: ".removeprefix(": ")
    example = first_example(ctx.command.help)
    if isinstance(error, NoSuchOption):
        close = error.possibilities[0] if error.possibilities else ""
        hint = f", did you mean {close}?" if close else ""
        message = f"{where}unknown flag {error.option_name}{hint} (see {path} --help)"
        return UsageError(message, "" if close else example)
    if isinstance(error, NoSuchCommand):
        return unknown_command(error.command_name, ctx)
    if isinstance(error, BadOptionUsage):
        return _wrong_number_of_values(error, ctx)
    if isinstance(error, MissingParameter) and error.param is not None:
        option = error.param.param_type_name == "option"
        name = error.param.opts[-1] if option else error.param.make_metavar(ctx)
        return UsageError(f"{where}{name} is missing", example)
    return UsageError(f"{where}{error.format_message()}", example)


def unknown_command(word: str, ctx: click.Context) -> UsageError:
    """Return the error for a command that the group of ``ctx`` lacks."""
    if not isinstance(ctx.command, click.Group):
        return UsageError(
            f"{ctx.command_path}: it has no commands", first_example(ctx.command.help)
        )
    names = ctx.command.list_commands(ctx)
    close = difflib.get_close_matches(word, names, n=1)
    if word in _NOT_HERE and ctx.parent is None:
        hint = f": {_NOT_HERE[word]}"
    elif close:
        hint = f", did you mean {close[0]}?"
    else:
        hint = f": it is {one_of(names)}"
    return UsageError(f"unknown command {word!r}{hint}", first_example(ctx.command.help))


def _wrong_number_of_values(error: BadOptionUsage, ctx: click.Context) -> UsageError:
    flag = next(
        (p for p in ctx.command.params if error.option_name in (*p.opts, *p.secondary_opts)), None
    )
    name = flag.opts[-1] if flag is not None else error.option_name
    if isinstance(flag, click.Option) and flag.is_flag:
        return UsageError(f"{name}: it takes no value", name)
    example = getattr(flag.type, "example", "") if flag is not None else ""
    return UsageError(f"{name}: its value is missing", f"{name} {example}")


def first_example(text: str | None) -> str:
    """Return the first example in a description."""
    _, _, examples = (text or "").partition("examples:\n")
    line = examples.strip().partition("\n")[0]
    return line.partition("   ")[0]
