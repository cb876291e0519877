"""Values of flags: how each is named in help texts, parsed, completed, and shown in examples."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from cli.errors import UsageError
from cli.timestamps import parse_duration_s, parse_time

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Value(click.ParamType[Any]):
    """One kind of value. ``parse`` raises `UsageError` for a text that is wrong."""

    def __init__(
        self,
        name: str,
        parse: Callable[[str], Any] = str,
        *,
        example: str,
        known: Callable[[click.Context], Iterable[str]] | None = None,
        is_file: bool = False,
    ) -> None:
        """``known`` returns the values that a shell may complete."""
        self.name = name
        self.example = example
        self._parse = parse
        self._known = known
        self._is_file = is_file

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parsed value; raise `UsageError` that names the flag."""
        if not isinstance(value, str):  # a default
            return value
        try:
            if not self._is_file:
                _check_text(value)
            return self._parse(value)
        except UsageError as error:
            if isinstance(param, click.Argument) and ctx is not None:
                raise UsageError(f"{param.make_metavar(ctx)}: {error.message}") from None
            flag = param.opts[-1] if param is not None else self.name
            example = f"{flag} {error.example or self.example}"
            raise UsageError(f"{flag}: {error.message}", example) from None

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the name of the value."""
        return self.name

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return file names, or known values that begin with ``incomplete``."""
        from click.shell_completion import CompletionItem

        if self._is_file:
            return [CompletionItem(incomplete, type="file")]
        known = self._known(ctx) if self._known is not None else ()
        return [CompletionItem(word) for word in known if word.startswith(incomplete)]


def _check_text(value: str) -> None:
    """Raise `UsageError` where a word of the command line is not UTF-8, as requests are."""
    try:
        value.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(value).decode(errors="backslashreplace")
        raise UsageError(
            f"{shown}: not UTF-8: events have the character U+FFFD in the place of such bytes"
        ) from None


class Choice(click.Choice[str]):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        """Accept ``words`` and nothing else."""
        super().__init__(words)
        self.example = words[0]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the word; raise `UsageError` that lists the words."""
        if value in self.choices:
            return str(value)
        message = f"{value!r} is not {one_of(self.choices)}"
        if isinstance(param, click.Option):
            names = "/".join(param.opts)
            raise UsageError(f"{names}: {message}", f"{param.opts[-1]} {self.example}")
        where = f"{param.metavar}: " if param is not None else ""
        raise UsageError(f"{where}{message}")


def one_of(words: Iterable[str]) -> str:
    """Return ``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def comma_list(text: str) -> list[str]:
    """Return the values of one CSV record: ``a,b`` or ``"x,y",z``; none for an empty text."""
    if not text:
        return []
    return next(csv.reader([text])) if '"' in text else text.split(",")


def absolute_paths(text: str) -> list[str]:
    """Return the values of a list of paths that begin with a slash."""
    found = comma_list(text)
    for path in found:
        if not path.startswith("/"):
            raise UsageError(f"{path!r} is not an absolute path")
    return found


def networks(text: str) -> list[str]:
    """Return the values of a list of IP addresses and networks."""
    import ipaddress  # of one flag only; it takes 3 ms

    found = comma_list(text)
    for network in found:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            message = f"{network!r} is neither an IP address nor a network, without a port"
            raise UsageError(message) from None
    return found


def _boolean(text: str) -> bool:
    """Return what Go's flag package reads as a boolean."""
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise UsageError(f"{text!r} is neither true nor false")


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a whole number") from None


def _cel(text: str) -> str:
    """Return a CEL expression; without the quotes that Tetragon's own client needs for a comma."""
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    inner = text[1:-1].replace('""', "")
    # One text in quotes is no expression, since it is not a boolean.
    return text[1:-1].replace('""', '"') if quoted and '"' not in inner else text


BOOL = Value("BOOL", _boolean, example="true")
BYTES = Value("BYTES", _integer, example="67108864")
CEL = Value("CEL", _cel, example="'process_exec.process.pid > uint(1)'")
CURSOR = Value("CURSOR", example="81234:17")
DURATION = Value("DURATION", parse_duration_s, example="10s")
FILE = Value("FILE", example="tls.pem", is_file=True)
FILES = Value("FILE[,...]", comma_list, example="ca.pem", is_file=True)
INTEGER = Value("N", _integer, example="10")
NAMES = Value("NAME[,...]", comma_list, example="web-1")
PATHS = Value("PATH[,...]", comma_list, example="process.pid")
UNITS = Value("UNIT[,...]", comma_list, example="nginx.service")
SESSIONS = Value("SESSION[,...]", comma_list, example="42")
PIDS = Value("PID[,...]", comma_list, example="4711")
REGEX = Value("REGEX", example="'^/usr/bin/'")
TIME = Value("TIME", parse_time, example="10m")
