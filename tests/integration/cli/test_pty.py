"""On a real pseudo-terminal: colours, keys, resizing, Ctrl-C, and a terminal left as it was."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

import pytest


class Terminal:
    """The other side of a pseudo-terminal that a command runs on."""

    def __init__(self, start, *args, rows=24, columns=80, **env):
        self.fd, slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.text = ""
        self.process = start(
            *args,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=env,
        )

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, wanted, timeout_s=10):
        """Read until ``wanted`` was shown since the last call."""
        deadline = time.monotonic() + timeout_s
        while wanted not in self.text:
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted!r} is not in {self.text!r}"
            if select.select([self.fd], [], [], left)[0]:
                self.text += os.read(self.fd, 65536).decode(errors="replace")
        seen, self.text = self.text, ""
        return seen

    def press(self, keys):
        os.write(self.fd, keys)

    def close(self):
        os.close(self.fd)
        os.close(self.slave)


@pytest.fixture
def terminal(start_tetra):
    """Run ``tetra`` on a pseudo-terminal."""
    opened = []

    def start(*args, **options):
        opened.append(Terminal(start_tetra, *args, **options))
        return opened[-1]

    yield start
    for each in opened:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait(5)
        each.close()


@pytest.fixture
def address(serve, gateway_of, make_event):
    """A gateway with a process or two."""
    events = [make_event(pid) for pid in (1, 2)]
    for event in events:
        event.process_exec.process.exec_id = f"id{event.process_exec.process.pid.value}"
        event.process_exec.process.start_time.seconds = 1_767_225_600
    return serve(gateway_of([events]))


def test_colours_on_a_terminal_and_ctrl_c(terminal, address):
    screen = terminal("getevents", "--last", "2", "--server-address", address)
    seen = screen.wait_for("/usr/bin/true\x1b[0m 2")
    assert "\x1b[32m🚀 process\x1b[0m 1: \x1b[36mroot\x1b[0m" in seen
    screen.press(b"\x03")
    assert screen.process.wait(10) == 0


def test_no_colour_where_it_is_not_wanted(terminal, address):
    screen = terminal("getevents", "--last", "2", "--server-address", address, NO_COLOR="1")
    assert "🚀 process 1: root: /usr/bin/true 1" in screen.wait_for("true 2")


def test_terminal_is_not_read_as_events(terminal, address):
    screen = terminal("getevents", "--last", "2", TETRA_SERVER_ADDRESS=address)
    screen.wait_for("/usr/bin/true\x1b[0m 2")


@pytest.mark.parametrize("command", ["top", "tree"])
def test_full_screen_follows_keys_and_size_and_leaves_the_terminal_as_it_was(
    terminal, address, command
):
    screen = terminal(command, "--server-address", address)
    screen.wait_for("q quit")
    screen.wait_for("/usr/bin/true")
    screen.resize(12, 60)
    screen.wait_for(" " * 5)
    screen.press(b"u" if command == "top" else b"p")
    screen.wait_for("USER" if command == "top" else "paused")
    screen.press(b"q")
    screen.wait_for("\x1b[?1049l")  # back from the alternate screen
    assert screen.process.wait(10) == 0
    assert termios.tcgetattr(screen.slave) == screen.before


@pytest.mark.parametrize("command", ["top", "tree"])
def test_ctrl_c_leaves_the_terminal_as_it_was(terminal, address, command):
    screen = terminal(command, "--server-address", address)
    screen.wait_for("q quit")
    screen.press(b"\x03")
    screen.wait_for("\x1b[?1049l")
    assert screen.process.wait(10) == 0
    assert termios.tcgetattr(screen.slave) == screen.before


def test_full_screen_without_a_server_is_one_line(terminal):
    screen = terminal("top", "--server-address", "127.0.0.1:1")
    screen.wait_for("tetra: error: connect: 127.0.0.1:1: connection refused")
    assert screen.process.wait(10) == 1
    assert termios.tcgetattr(screen.slave) == screen.before


def test_pipe_through_head(start_tetra, address):
    first = start_tetra("getevents", "--last", "2", "--server-address", address)
    done = subprocess.run(["head", "-n", "1"], stdin=first.stdout, capture_output=True, timeout=10)
    assert done.stdout.decode() == "🚀 process 1: root: /usr/bin/true 1\n"
