"""Errors of the command line, each as one line with what to do instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import click
from click.exceptions import BadOptionUsage, MissingParameter, NoSuchCommand, NoSuchOption

from cli.errors import UsageError
from cli.values import one_of

_LEAST_LIKENESS = 0.65  # see difflib.SequenceMatcher.ratio
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
    example = first_example(ctx.command)
    if isinstance(error, NoSuchOption):
        close = _close_flag(error, ctx)
        hint = f", did you mean {close.opts[-1]}?" if close is not None else ""
        message = f"{where}unknown flag {error.option_name}{hint} (see {path} --help)"
        return UsageError(message, _flag_example(close) if close is not None else example)
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
        return UsageError(f"{ctx.command_path}: it has no commands", first_example(ctx.command))
    names = ctx.command.list_commands(ctx)
    close = _near(word, names)
    if word in _NOT_HERE and ctx.parent is None:
        hint = f": {_NOT_HERE[word]}"
    elif close:
        hint = f", did you mean {close[0]}?"
    else:
        hint = f": it is {one_of(names)}"
    return UsageError(f"unknown command {word!r}{hint}", first_example(ctx.command))


def _wrong_number_of_values(error: BadOptionUsage, ctx: click.Context) -> UsageError:
    flag = next(
        (p for p in ctx.command.params if error.option_name in (*p.opts, *p.secondary_opts)), None
    )
    name = flag.opts[-1] if flag is not None else error.option_name
    if isinstance(flag, click.Option) and flag.is_flag:
        return UsageError(f"{name}: it takes no value", name)
    example = _flag_example(flag) if isinstance(flag, click.Option) else ""
    return UsageError(f"{name}: its value is missing", example)


def _close_flag(error: NoSuchOption, ctx: click.Context) -> click.Option | None:
    """Return the flag that begins as the unknown one does, else the one that looks most like it."""
    flags = {
        name: param
        for param in ctx.command.get_params(ctx)
        if isinstance(param, click.Option)
        for name in param.opts
    }
    begun = [
        name for name in flags if len(error.option_name) > 3 and name.startswith(error.option_name)
    ]
    without_dashes = {name.lstrip("-"): name for name in flags}
    near = _near(error.option_name.lstrip("-"), without_dashes)
    names = [*begun, *(without_dashes[name] for name in near)]
    return flags[names[0]] if names else None


def _near(word: str, names: Iterable[str]) -> list[str]:
    """Return the name that ``word`` was probably meant to be; a bad guess is worse than none."""
    return difflib.get_close_matches(word, list(names), n=1, cutoff=_LEAST_LIKENESS)


def _flag_example(flag: click.Option) -> str:
    name = flag.opts[-1]
    has_value = not flag.is_flag and flag.flag_value is not True
    return f"{name} {getattr(flag.type, 'example', '1')}" if has_value else name


def completed(error: UsageError, ctx: click.Context) -> UsageError:
    """Return ``error`` with an example that is a whole command line of the command in ``ctx``."""
    example = error.example
    if not example:
        example = first_example(ctx.command)
    elif example.startswith("-"):
        example = " ".join([ctx.command_path, *_needed(ctx.command), example])
    return UsageError(error.message, example)


def _needed(command: click.Command) -> list[str]:
    """Return an example of each argument that ``command`` needs."""
    arguments = [p for p in command.params if isinstance(p, click.Argument) and p.required]
    return [str(getattr(argument.type, "example", argument.name)) for argument in arguments]


def first_example(command: click.Command) -> str:
    """Return the first example in a command's description, best one with its name."""
    _, _, examples = (command.help or "").partition("examples:\n")
    lines = examples.strip().split("\n")
    named = (line for line in lines if f" {command.name} " in f"{line} ")
    return next(named, lines[0]).strip().partition("   ")[0]
