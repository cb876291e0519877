"""``tetra``: parse, run a command, turn errors into one line and an exit code.

Exit codes: 0 done (also after Ctrl-C or when the reader closes a pipe), 1 it failed (no
server, broken stream), 2 the command line is wrong, 3 ``verify`` found events missing.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from cli import commands, interrupts
from cli.errors import TetraError, UsageError
from cli.terminal import visible


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tetra`` and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the locale cannot write becomes an escape, not an exception.
        sys.stdout.reconfigure(errors="backslashreplace")
    tetra = commands.tetra()
    instruction = os.environ.get(commands.COMPLETION_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(tetra, {}, "tetra", commands.COMPLETION_VARIABLE, instruction)
    try:
        context = tetra.make_context("tetra", [*(sys.argv[1:] if argv is None else argv)])
    except click.exceptions.Exit as exit:  # --help, --version
        return exit.exit_code
    except TetraError as error:
        return _fail(error)
    return _run(tetra, context)


def _run(tetra: click.Group, context: click.Context) -> int:
    try:
        interrupts.enable()
        with context:
            code: int = tetra.invoke(context)
        if sys.stdout is not None:  # closed by the parent process
            sys.stdout.flush()
        return code
    except click.exceptions.Exit as exit:
        return exit.exit_code
    except (KeyboardInterrupt, BrokenPipeError):
        return _quietly(0)
    except TetraError as error:
        if commands.is_debug(context) and not isinstance(error, UsageError):
            raise
        return _fail(error)
    except OSError as error:
        if commands.is_debug(context):
            raise
        # A full disk behind stdout, a closed terminal. Errors of other files are TetraErrors.
        cause = (error.strerror or str(error)).lower()
        return _quietly(_fail(TetraError(f"write: standard output: {cause}")))


def _fail(error: TetraError) -> int:
    with suppress(OSError):
        lines = [f"tetra: error: {visible(str(error))}"]
        lines += [f"  {visible(line)}" for line in error.details]
        print("\n".join(lines), file=sys.stderr, flush=True)
    return error.exit_code


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
