"""Flags for the way to the server. They work before and after the name of the command."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from cli.address import DEFAULT_ADDRESS, ServerOptions, Tls, default_address, parse_addresses
from cli.errors import UsageError
from cli.flags import Flag
from cli.terminal import notice
from cli.values import BYTES, DURATION, FILE, FILES, INTEGER, Value

_GIVEN = "cli.server_flags"  # in the metadata that all contexts of one command line share
_COMPLETION_TIMEOUT_S = 1.0
_TOKEN_EXAMPLE = "--token-file token.txt"

_ADDRESSES = Value("HOST:PORT[,...]", example=DEFAULT_ADDRESS)
_NAME = Value("NAME", example="gateway.example")

DEFAULTS: dict[str, Any] = {
    "server_address": None,
    "timeout": 30.0,
    "retries": 1,
    "max_recv_size": 10 * 1024 * 1024,
    "tls_ca_cert_files": (),
    "tls_cert_file": "",
    "tls_key_file": "",
    "tls_server_name": "",
    "tls_skip_verify": False,
    "token_file": "",
    "debug": False,
}


def server_flags() -> list[Flag]:
    """Return the flags, for a command or a group of commands."""
    flags: tuple[tuple[tuple[str, ...], Value | None, str], ...] = (
        (
            ("--server-address",),
            _ADDRESSES,
            "address of a gateway or of Tetragon: host:port, unix:///path or dns:///name:port; "
            "several are separated by commas [default: TETRA_SERVER_ADDRESS, else the address in "
            f"the info file of a Tetragon agent on this host, else {DEFAULT_ADDRESS}]",
        ),
        (("--timeout",), DURATION, "limit for one call; streams have none [default: 30s]"),
        (
            ("--retries",),
            INTEGER,
            "repetitions of a call if no server answers [default: 1]",
        ),
        (
            ("--max-recv-size",),
            BYTES,
            "largest message to accept, and longest line on stdin [default: 10485760]",
        ),
        (("--tls-ca-cert-files",), FILES, "certificate authorities of the server"),
        (("--tls-cert-file",), FILE, "client certificate, for mTLS"),
        (("--tls-key-file",), FILE, "key of the client certificate"),
        (("--tls-server-name",), _NAME, "name in the server's certificate"),
        (("--tls-skip-verify",), None, "encrypt, but do not verify the server's certificate"),
        (
            ("--token-file",),
            FILE,
            "file with the token for a gateway that requires one [the token itself: TETRA_TOKEN]",
        ),
        (("-d", "--debug"), None, "show gRPC's log and tracebacks on stderr"),
    )
    return [_flag(names, value, help) for names, value, help in flags]


def _flag(names: tuple[str, ...], value: Value | None, help: str) -> Flag:
    return Flag(
        *names,
        section="server",
        type=value,
        is_flag=value is None,
        multiple=value is FILES,
        default=None,
        help=help,
        expose_value=False,
        callback=_keep,
    )


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    # The callback runs for the group's flag, then for the command's: the last one given holds.
    if value is None or value == ():
        return
    if param.multiple:
        value = [each for values in value for each in values]
    ctx.meta.setdefault(_GIVEN, {})[param.name] = value


def given_server_flags(ctx: click.Context) -> dict[str, Any]:
    """Return the flags by name, with defaults where none was given."""
    return {**DEFAULTS, **ctx.meta.get(_GIVEN, {})}


def server_options(args: SimpleNamespace) -> ServerOptions:
    """Return how to reach the server; raise `UsageError` where flags do not fit together."""
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
        notice(f"the token goes to {text} unencrypted; --tls-ca-cert-files ca.pem encrypts it")
    return options


def completion_options(ctx: click.Context) -> ServerOptions:
    """Return how to reach the server while a shell waits for an answer."""
    given = given_server_flags(ctx)
    return server_options(
        SimpleNamespace(**{**given, "timeout": _COMPLETION_TIMEOUT_S, "retries": 0})
    )


def _token(args: SimpleNamespace) -> str:
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


def _tls(args: SimpleNamespace) -> Tls | None:
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
