"""A full-screen view of a live stream: keys, drawing at intervals, a clean end.

The stream is read in a thread, so that keys and resizing work while no event comes.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from cli.client import Client
from cli.errors import UsageError
from cli.resume import Batch

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tetra.v1.stream_pb2 import StreamEventsRequest

_NOTICE_S = 5.0
_QUEUE_BATCHES = 8  # a full queue stops reading; the gateway then sends the events later
_POLL_S = 0.1
_DRAIN_S = 0.1  # keys are read at least this often, however many events come

_KEYS = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"k": "up",
    b"j": "down",
    b"g": "home",
    b"G": "end",
    b" ": "page down",
    b"\x1b": "q",
}


class Taker(Protocol):
    """Consumes the batches of a stream."""

    def take(self, batch: Batch) -> None:
        """Add a batch of events."""


class View(Taker, Protocol):
    """The content of a screen."""

    def press(self, key: str) -> None:
        """React to a key."""

    def draw(self, width: int, height: int, notice: str) -> RenderableType:
        """Return the whole screen; a ``notice`` is shown instead of the keys."""


class Feed:
    """Batches of a stream, read in a thread."""

    def __init__(self, client: Client, request: StreamEventsRequest) -> None:
        self._client = client
        self._request = request
        self._queue: queue.Queue[Batch | BaseException | None] = queue.Queue(_QUEUE_BATCHES)
        threading.Thread(target=self._read, name="stream", daemon=True).start()

    def _read(self) -> None:
        try:
            self._client.warn_of_unknown_nodes(self._request.nodes)
            for batch in self._client.stream(self._request):
                self._queue.put(batch)
            self._queue.put(None)
        except BaseException as error:  # carried to the main thread
            self._queue.put(error)

    def drain(self, view: Taker, deadline_s: float) -> bool:
        """Pass waiting batches to ``view``; return False at the end; raise errors of the stream."""
        while time.monotonic() < deadline_s:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return True
            if item is None:
                return False
            if isinstance(item, BaseException):
                raise item
            view.take(item)
        return True


class _Notice:
    """The last notice about the connection; it disappears after a while."""

    def __init__(self) -> None:
        self._text = ""
        self._until_s = 0.0

    def show(self, text: str, for_s: float = _NOTICE_S) -> None:
        self._text, self._until_s = text, time.monotonic() + for_s

    def __str__(self) -> str:
        return self._text if time.monotonic() < self._until_s else ""


def watch(client: Client, request: StreamEventsRequest, view: View, interval_s: float) -> None:
    """Show ``view`` until q or Ctrl-C; raise `UsageError` without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("this needs a terminal on stdin and stdout", "--once")
    if os.environ.get("TERM", "dumb") == "dumb":
        raise UsageError("this needs a terminal that can do more than TERM=dumb", "--once")
    from rich.console import Console
    from rich.live import Live

    notice = _Notice()
    client.notice = notice.show
    # The size comes from the terminal: an exported COLUMNS would not follow its resizing.
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    console = Console(_environ=environment)
    live = Live(console=console, screen=True, auto_refresh=False)
    feed = Feed(client, request)
    with _suspension() as suspended, _keys() as pressed, live:
        next_draw_s = 0.0
        size = console.size
        while True:
            if not feed.drain(view, time.monotonic() + min(interval_s, _DRAIN_S)):
                notice.show("the stream has ended   q quit", float("inf"))
            for key in pressed():
                if key == "q":
                    return
                view.press(key)
                next_draw_s = 0.0
            if suspended:
                live.stop()
                pressed.release()
                suspended.stop()  # until fg
                pressed.take()
                live.start()
                next_draw_s = 0.0
            if time.monotonic() >= next_draw_s or console.size != size:
                size = console.size
                live.update(view.draw(size.width, size.height, str(notice)), refresh=True)
                next_draw_s = time.monotonic() + interval_s


class _Suspended:
    """Whether Ctrl-Z was pressed. The terminal is restored before the process stops."""

    def __init__(self) -> None:
        self._requested = False

    def __bool__(self) -> bool:
        return self._requested

    def request(self, signum: int, frame: object) -> None:
        self._requested = True

    def stop(self) -> None:
        self._requested = False
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self.request)


@contextmanager
def _suspension() -> Iterator[_Suspended]:
    suspended = _Suspended()
    before = signal.signal(signal.SIGTSTP, suspended.request)
    try:
        yield suspended
    finally:
        signal.signal(signal.SIGTSTP, before)


@contextmanager
def _keys() -> Iterator[_Pressed]:
    """Switch the terminal to single keys without echo; restore it in any case."""
    pressed = _Pressed(sys.stdin.fileno())
    try:
        pressed.take()
        yield pressed
    finally:
        pressed.release()


class _Pressed:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before = termios.tcgetattr(fd)

    def take(self) -> None:
        tty.setcbreak(self._fd)

    def release(self) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def __call__(self) -> list[str]:
        """Return the keys that were pressed; wait a moment for the first."""
        if not select.select([self._fd], [], [], _POLL_S)[0]:
            return []
        data = os.read(self._fd, 64)
        if not data:
            return ["q"]  # the terminal was closed
        if data in _KEYS:
            return [_KEYS[data]]
        return [_KEYS.get(bytes([byte]), chr(byte)) for byte in data if byte != 0x1B]
