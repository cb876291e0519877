"""A command on a pseudo-terminal, and what it shows.

The command starts without a ``preexec_fn``. With one, `subprocess` forks instead of using vfork,
and gRPC's fork handlers run in the child: they start a polling thread, `subprocess` closes its
epoll descriptor before exec, and the thread aborts the child with "epoll_wait: Bad file
descriptor" (grpc/grpc#43055). In a process with a gRPC server that was 6 to 9 of 500 commands.
"""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

import pyte


class Terminal:
    """The other side of a pseudo-terminal that a command runs on, as an xterm would show it."""

    def __init__(self, command, env, rows=24, columns=80):
        self.raw = ""  # all output so far
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._master, self._slave = pty.openpty()
        self._set_size(rows, columns)
        self.before = termios.tcgetattr(self._slave)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=env,
        )

    @property
    def modes(self):
        """The present settings of the terminal."""
        return termios.tcgetattr(self._slave)

    @property
    def lines(self):
        """The lines on the screen, without blanks at their ends."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def cells(self):
        """The characters of each line, with colours and styles."""
        columns = range(self._screen.columns)
        return [[self._screen.buffer[y][x] for x in columns] for y in range(self._screen.lines)]

    def resize(self, rows, columns):
        """Change the size; the command gets SIGWINCH."""
        self._screen.resize(rows, columns)
        self._set_size(rows, columns)

    def press(self, keys):
        """Type ``keys``."""
        os.write(self._master, keys.encode())

    def wait_until(self, condition, timeout_s=30):
        """Read output until ``condition(lines)`` holds; return the lines."""
        deadline = time.monotonic() + timeout_s
        while not condition(self.lines):
            left_s = deadline - time.monotonic()
            assert left_s > 0, "\n".join(["the screen is:", *self.lines])
            if select.select([self._master], [], [], left_s)[0]:
                try:
                    data = os.read(self._master, 65536)
                except OSError:  # EIO: no process has the other side open
                    data = b""
                assert data, "\n".join(["the command has ended:", *self.lines])
                self.raw += data.decode(errors="replace")
                self._stream.feed(data)
        return self.lines

    def wait_for(self, text, timeout_s=30):
        """Read output until ``text`` is on the screen; return the lines."""
        return self.wait_until(lambda lines: any(text in line for line in lines), timeout_s)

    def wait_for_raw(self, text, timeout_s=30):
        """Read output until the command has written ``text``."""
        self.wait_until(lambda lines: text in self.raw, timeout_s)

    def close(self):
        """Kill the command if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        os.close(self._master)
        os.close(self._slave)

    def _set_size(self, rows, columns):
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
