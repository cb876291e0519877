"""Argument parsing as the original's users expect it: Go-style flags, one-line errors."""

from __future__ import annotations

import argparse
import csv
import difflib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from cli.address import DEFAULT_ADDRESS, ServerOptions, Tls, default_address, parse_addresses
from cli.errors import UsageError
from cli.terminal import notice
from cli.timestamps import parse_duration_s

_T = TypeVar("_T")


# A right value for each kind of value, for messages about wrong ones.
_EXAMPLES = {
    "BOOL": "true",
    "BYTES": "67108864",
    "CEL": "'process_exec.process.pid > uint(1)'",
    "CURSOR": "81234:17",
    "DURATION": "10s",
    "FILE": "tls.pem",
    "FILE[,...]": "ca.pem",
    "HOST:PORT[,...]": DEFAULT_ADDRESS,
    "LEVEL": "debug",
    "N": "10",
    "NAME": "web-1",
    "PATH": "process.pid",
    "PID": "4711",
    "REGEX": "'^/usr/bin/'",
    "SELECTOR": "'app=web,tier in (a,b)'",
    "TEMPLATE": "time,pid,binary",
    "TIME": "10m",
    "TYPE": "PROCESS_EXEC",
    "URL": "nats://127.0.0.1:4222",
    "[SET:[MODE:]]NAME": "CAP_SYS_ADMIN",
}

_TOKEN_EXAMPLE = "--token-file token.txt"

# What Tetragon's own client has and nothing here serves.
_NOT_SERVED = {
    **dict.fromkeys(
        ("tracingpolicy", "tp", "policytest", "pt", "policyfilter", "sensors", "explain"),
        "there are no tracing policies here, processes are told without one",
    ),
    **dict.fromkeys(("bugtool", "probe"), "tetra doctor looks a host over"),
    **dict.fromkeys(
        ("eventlog", "debug", "dump", "cri", "cgtracker", "rthooks"), "not served here"
    ),
}


class Parser(argparse.ArgumentParser):
    """Raises `UsageError`, with an example of what is right, instead of printing a usage text."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, exit_on_error=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; report what is wrong here, where the sub-command's flags are known."""
        try:
            parsed, unknown = super().parse_known_args(args, namespace)
        except argparse.ArgumentError as error:
            if error.argument_name is None:  # Python 3.13 says so what is missing
                self.error(error.message)
            raise self._wrong_value(error) from None
        if unknown:
            raise self._unknown(unknown[0])
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`: something is missing."""
        missing = message.removeprefix("the following arguments are required: ")
        if missing != message:
            message = f"{self._where}{missing} is missing"
        raise UsageError(message, self._first_example())

    @property
    def _where(self) -> str:
        return f"{self.prog.partition(' ')[2]}: " if " " in self.prog else ""

    def _unknown(self, word: str) -> UsageError:
        if not word.startswith("-"):
            return UsageError(f"{self._where}unexpected argument {word!r}", self._first_example())
        flags = [flag for action in self._actions for flag in action.option_strings]
        close = difflib.get_close_matches(word.partition("=")[0], flags, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        message = f"{self._where}unknown flag {word}{hint} (see {self.prog} --help)"
        return UsageError(message, "" if close else self._first_example())

    def _wrong_value(self, error: argparse.ArgumentError) -> UsageError:
        name = error.argument_name or ""
        action = next((a for a in self._actions if argparse._get_action_name(a) == name), None)
        message = error.message
        given = re.search(r"(?:choice|value): '(.*?)'(?: |$)", message)
        if isinstance(action, argparse._SubParsersAction) and given:
            return self._unknown_command(given[1], action)
        if "for example: " in message or action is None:
            return UsageError(f"{name}: {message}" if name else message)
        flag = action.option_strings[-1] if action.option_strings else self.prog
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        value = str(next(iter(action.choices))) if action.choices else _EXAMPLES.get(metavar, "")
        if given and action.choices:
            message = f"{given[1]!r} is not {one_of(map(str, action.choices))}"
        elif given and action.type is int:
            message = f"{given[1]!r} is not a whole number"
        elif message.startswith("expected "):
            message = "its value is missing"
        return UsageError(f"{name}: {message}", f"{flag} {value}".rstrip())

    def _unknown_command(self, word: str, action: argparse._SubParsersAction[Parser]) -> UsageError:
        close = difflib.get_close_matches(word, [*action.choices], n=1)
        if word in _NOT_SERVED:
            hint = f": {_NOT_SERVED[word]}"
        elif close:
            hint = f", did you mean {close[0]}?"
        else:
            hint = f": it is {one_of(c.dest for c in action._choices_actions)}"
        return UsageError(f"unknown command {word!r}{hint}", self._first_example())

    def _first_example(self) -> str:
        _, _, examples = (self.description or "").partition("examples:\n")
        return re.split(r"\s{3,}|\n", examples.strip())[0]


def checked(parse: Callable[[str], _T], name: str) -> Callable[[str], _T]:
    """Return ``parse`` for use as an argparse type: its `UsageError` passes unchanged."""

    def convert(text: str) -> _T:
        try:
            return parse(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    convert.__name__ = name
    return convert


duration_s = checked(parse_duration_s, "duration")


def comma_list(text: str) -> list[str]:
    """Return the values of one CSV record: ``a,b`` or ``"x,y",z``; none for an empty text."""
    if not text:
        return []
    return next(csv.reader([text])) if '"' in text else text.split(",")


class ListAction(argparse.Action):
    """A flag that may repeat and whose values are split at commas."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Append the values."""
        have = list(getattr(namespace, self.dest, None) or ())
        setattr(namespace, self.dest, have + comma_list(str(values)))


def add_list(group: argparse._ActionsContainer, *flags: str, help: str, metavar: str) -> None:
    """Add a flag that may repeat and takes a comma-separated list."""
    group.add_argument(*flags, action=ListAction, default=[], metavar=metavar, help=help)


def boolean(text: str) -> bool:
    """Return what Go's flag package reads as a boolean."""
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def add_switch(
    group: argparse._ActionsContainer, *flags: str, help: str, default: bool = False
) -> None:
    """Add a flag that may stand alone or be given ``=true`` or ``=false``."""
    group.add_argument(
        *flags, nargs="?", const=True, default=default, type=boolean, metavar="BOOL", help=help
    )


def add_global_flags(parser: argparse.ArgumentParser, *, suppress: bool) -> None:
    """Add the flags that work before and behind the sub-command.

    ``suppress`` leaves defaults out, so that a sub-command's do not hide what stood before it.
    """

    def default(value: object) -> Any:
        return argparse.SUPPRESS if suppress else value

    group = parser.add_argument_group("server")
    group.add_argument(
        "--server-address",
        default=default(None),
        metavar="HOST:PORT[,...]",
        help="gateway or Tetragon to ask: host:port, unix:///path or dns:///name:port, several "
        "separated by commas [TETRA_SERVER_ADDRESS; what a Tetragon agent here says in its info "
        f"file; {DEFAULT_ADDRESS}]",
    )
    group.add_argument(
        "--timeout",
        type=duration_s,
        default=default(30.0),
        metavar="DURATION",
        help="how long a call may take; streams may take for ever [30s]",
    )
    group.add_argument(
        "--retries",
        type=int,
        default=default(1),
        metavar="N",
        help="how often to repeat a call that reached nobody [1]",
    )
    group.add_argument(
        "--max-recv-size",
        type=int,
        default=default(10 * 1024 * 1024),
        metavar="BYTES",
        help="largest message to accept, also the longest line on stdin [10485760]",
    )
    group.add_argument(
        "--tls-ca-cert-files",
        action=ListAction,
        default=default([]),
        metavar="FILE[,...]",
        help="certificate authorities that may vouch for the server",
    )
    group.add_argument(
        "--tls-cert-file", default=default(""), metavar="FILE", help="our certificate, for mTLS"
    )
    group.add_argument(
        "--tls-key-file", default=default(""), metavar="FILE", help="key of our certificate"
    )
    group.add_argument(
        "--tls-server-name",
        default=default(""),
        metavar="NAME",
        help="name that the server's certificate has",
    )
    group.add_argument(
        "--tls-skip-verify",
        action="store_true",
        default=default(False),
        help="encrypt, but believe whoever answers",
    )
    group.add_argument(
        "--token-file",
        default=default(""),
        metavar="FILE",
        help="file with the token that the gateway asks for [the token itself: TETRA_TOKEN]",
    )
    group.add_argument(
        "-d",
        "--debug",
        action="store_true",
        default=default(False),
        help="say more on stderr; show tracebacks",
    )


def server_options(args: argparse.Namespace) -> ServerOptions:
    """Return how to reach the server; raise `UsageError` where flags do not fit."""
    text = args.server_address or os.environ.get("TETRA_SERVER_ADDRESS") or default_address()
    if args.timeout <= 0:
        raise UsageError("--timeout: must be more than 0", "--timeout 30s")
    if args.retries < 0:
        raise UsageError("--retries: must not be negative", "--retries 1")
    if args.max_recv_size < 1:
        raise UsageError("--max-recv-size: must be at least 1", "--max-recv-size 10485760")
    options = ServerOptions(
        addresses=parse_addresses(text),
        timeout_s=args.timeout,
        retries=args.retries,
        max_recv_size_bytes=args.max_recv_size,
        tls=_tls(args),
        token=_token(args),
    )
    if options.shows_token:
        notice(f"the token goes to {text} unencrypted; --tls-ca-cert-files ca.pem encrypts")
    return options


def _token(args: argparse.Namespace) -> str:
    if args.token_file:
        where = f"--token-file: {args.token_file}"
        try:
            text = Path(args.token_file).read_text()
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or "not a text file"
            raise UsageError(f"{where}: {cause.lower()}", _TOKEN_EXAMPLE) from None
    else:
        where, text = "TETRA_TOKEN", os.environ.get("TETRA_TOKEN", "")
    words = text.split()
    if not words and not args.token_file:
        return ""
    if len(words) != 1 or not re.fullmatch(r"[!-~]+", words[0]):
        raise UsageError(f"{where}: not one token of printable ASCII characters", _TOKEN_EXAMPLE)
    return words[0]


def _tls(args: argparse.Namespace) -> Tls | None:
    if bool(args.tls_cert_file) != bool(args.tls_key_file):
        raise UsageError(
            "--tls-cert-file and --tls-key-file: one needs the other",
            "--tls-cert-file client.pem --tls-key-file client-key.pem",
        )
    tls = Tls(
        ca_cert_files=tuple(args.tls_ca_cert_files),
        cert_file=args.tls_cert_file,
        key_file=args.tls_key_file,
        server_name=args.tls_server_name,
        skip_verify=args.tls_skip_verify,
    )
    return tls if tls != Tls() else None


def one_of(words: Iterable[str]) -> str:
    """Return ``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
