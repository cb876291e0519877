"""One child process: its log, the line that reports it ready, and how it is stopped."""

import asyncio
import ctypes
import json
import os
import signal
from asyncio import StreamReader
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

from chassis.folders import open_own
from embedded.errors import ChildError

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_TAIL_LINES = 10  # of the log, shown where a child fails
_LINE_MAX_BYTES = 1 << 20
_LAST_LINES_WITHIN_S = 0.2  # a helper of the child may hold its output open
_LIBC = ctypes.CDLL(None, use_errno=True)


class Child:
    """A process in its own session, so that Ctrl-C reaches only the launcher.

    If the launcher dies for any reason, the kernel kills the child (PR_SET_PDEATHSIG).
    """

    def __init__(self, name: str, argv: Sequence[str | Path], *, stop_within_s: float) -> None:
        self.name = name
        self._argv = [str(arg) for arg in argv]
        self._stop_within_s = stop_within_s
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._logged = False
        self._unwritten = 0  # lines, since the last one that was written
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._waiters: list[tuple[str, asyncio.Future[str]]] = []

    @property
    def pid(self) -> int:
        """Process id of the last start."""
        assert self._process
        return self._process.pid

    def add_arguments(self, *arguments: str) -> None:
        """Add arguments to the command line, before the start."""
        self._argv += arguments

    async def start(self, env: Mapping[str, str], log: Path | None = None) -> None:
        """Start it or start it again; output goes to ``log``, without one to the terminal."""
        parent = os.getpid()
        self._tail.clear()

        def die_with_parent() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # the launcher died before the line above
                os._exit(1)

        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                env=env,
                stdin=DEVNULL,
                stdout=PIPE if log else None,
                stderr=STDOUT if log else None,
                start_new_session=True,
                preexec_fn=die_with_parent,
                limit=_LINE_MAX_BYTES,
            )
        except OSError as error:
            cause = (error.strerror or str(error)).lower()
            raise ChildError(f"{self.name}: {self._argv[0]}: {cause}", exit_code=1) from None
        if log:
            self._reader = asyncio.create_task(self._read(self._open_log(log)))

    def _open_log(self, path: Path) -> FileIO:
        if not self._logged:  # the log of the last run stays readable
            with suppress(FileNotFoundError):
                path.replace(path.with_suffix(".log.1"))
        self._logged = True
        return FileIO(open_own(path, append=True), "wb")

    async def _read(self, log: FileIO) -> None:
        assert self._process
        assert self._process.stdout
        with log:
            while line := await _next_line(self._process.stdout):
                self._log(log, line)
                text = line.decode(errors="replace").rstrip()
                self._tail.append(text)
                for phrase, future in self._waiters:
                    if phrase in text and not future.done():
                        future.set_result(text)

    def _log(self, log: FileIO, line: bytes) -> None:
        """Write a line; on a full disk it is dropped and counted: a child must never block."""
        try:
            if self._unwritten:
                log.write(b"%d lines could not be written: the disk was full\n" % self._unwritten)
            self._unwritten = 0
            log.write(line)
        except OSError:
            self._unwritten += 1

    async def wait_for_line(self, phrase: str, timeout_s: float) -> str:
        """Return the next line that contains ``phrase``; raise `ChildError` if none comes."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiters.append((phrase, future))
        end = asyncio.create_task(self.wait())
        try:
            await asyncio.wait(
                (future, end), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if future.done():
                return future.result()
            if end.done():
                raise self.death()
            raise ChildError(
                f"{self.name}: not ready within {timeout_s:.0f} s",
                exit_code=1,
                details=self.tail(),
            )
        finally:
            end.cancel()
            self._waiters.remove((phrase, future))

    async def wait(self) -> int:
        """Return the exit code when it has ended and its last line is read."""
        assert self._process
        code = await self._process.wait()
        if self._reader:
            await asyncio.wait((self._reader,), timeout=_LAST_LINES_WITHIN_S)
        return code

    def death(self) -> ChildError:
        """Return why it ended: its own error line, if it printed one."""
        assert self._process
        code = self._process.returncode or 0
        own_error = next((line for line in reversed(self._tail) if ": error: " in line), None)
        if own_error:
            cause = own_error.partition(": error: ")[2]
            return ChildError(f"{self.name}: {cause}", exit_code=code if code > 0 else 1)
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return ChildError(f"{self.name}: {ended}", exit_code=1, details=self.tail())

    def tail(self) -> list[str]:
        """Return the last lines of its log, without JSON."""
        return [_readable(line) for line in self._tail]

    async def stop(self) -> None:
        """Stop it: SIGTERM, then SIGKILL to its session when the time limit is over."""
        if self._process is None:
            return
        if self._process.returncode is None:
            # terminate() may reap a child that has just ended, before asyncio's watcher does: that
            # prints "Unknown child process" and loses the exit code.
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), self._stop_within_s)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
        await self.wait()


async def _next_line(output: StreamReader) -> bytes:
    """Return the next line, nothing at the end; a longer one than the limit is a short text."""
    try:
        return await output.readline()
    except ValueError:
        return b"a line of more than %d bytes is left out\n" % _LINE_MAX_BYTES


def _readable(line: str) -> str:
    try:
        facts = json.loads(line)
        rest = " ".join(
            f"{key}={value}"
            for key, value in facts.items()
            if key not in ("event", "level", "timestamp", "logger")
        )
        return f"{facts.get('level', '')} {facts['event']} {rest}".strip()
    except (ValueError, KeyError, AttributeError):
        return line
