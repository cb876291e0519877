"""``tetra``: parse, run a sub-command, turn errors into one line and an exit code.

Exit codes: 0 done (also after Ctrl-C or when the reader of a pipe has gone), 1 it failed (no
server, broken stream), 2 the command line is wrong, 3 ``verify`` found a hole.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from cli import __version__, commands
from cli.arguments import Parser, add_global_flags
from cli.errors import TetraError, UsageError
from cli.terminal import visible

_DESCRIPTION = """Watch processes start and end, on one host or on all of them.

examples:
  tetra getevents                              the life cycle of every process, live
  tetra getevents --process '^/usr/bin/ssh'    only binaries that match
  tetra getevents --last 100 --no-follow       look back
  tetra getevents -o json | jq .process_exec   for scripts
  tetra top                                    what starts and ends most
  tetra tree                                   who runs under whom
  sudo tetra doctor                            is this host fit?
  tetra --server-address gw.example:54321 status
"""
_EPILOG = """environment:
  TETRA_SERVER_ADDRESS   default of --server-address
  TETRA_TOKEN            token that the gateway asks for, instead of --token-file
  NO_COLOR, TERM=dumb    no colours, except with --color always

exit codes: 0 done, 1 failed (no server, broken stream), 2 wrong command line,
3 verify: the stream is not whole
help on a command: tetra COMMAND --help
"""


def make_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="tetra", usage="tetra COMMAND [flags]", description=_DESCRIPTION, epilog=_EPILOG
    )
    subparsers = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", parser_class=Parser
    )
    for name in commands.NAMES:
        command = commands.load(name)
        sub = subparsers.add_parser(
            name,
            prog=f"tetra {name}",
            usage=f"tetra {name} {getattr(command, 'USAGE', '')}[flags]",
            help=command.HELP,
            description=command.DESCRIPTION,
            aliases=getattr(command, "ALIASES", ()),
        )
        command.configure(sub)
        add_global_flags(sub, suppress=True)
        sub.set_defaults(run=command.run)
    add_global_flags(parser, suppress=False)
    parser.add_argument(
        "--version",
        action="version",
        version=f"CLI version: {__version__}",
        help="as tetra version",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tetra`` and return its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the locale cannot write becomes an escape, not an exception.
        sys.stdout.reconfigure(errors="backslashreplace")
    debug = False
    try:
        parser = make_parser()
        args = parser.parse_args(argv)
        if args.command is None:
            parser.print_help()
            return 0
        debug = args.debug
        # gRPC's own log would stand between the lines; our errors say what it knows.
        os.environ.setdefault("GRPC_VERBOSITY", "DEBUG" if debug else "NONE")
        code: int = args.run(args)
        if sys.stdout is not None:  # closed by who started us
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _quietly(0)
    except BrokenPipeError:
        return _quietly(0)
    except TetraError as error:
        if debug and not isinstance(error, UsageError):
            raise
        return _fail(str(error), error.exit_code)
    except OSError as error:
        if debug:
            raise
        # A full disk behind stdout, a terminal that has gone. Files that are read are TetraErrors.
        return _quietly(
            _fail(f"write: standard output: {(error.strerror or str(error)).lower()}", 1)
        )


def _fail(message: str, code: int) -> int:
    with suppress(OSError):
        print(f"tetra: error: {visible(message)}", file=sys.stderr, flush=True)
    return code


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _quietly(code: int) -> int:
    # What is still buffered would raise again when the interpreter flushes at its end.
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    sys.exit(main())
