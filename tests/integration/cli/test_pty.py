"""On a real pseudo-terminal: colours, keys, resizing, Ctrl-C, and a terminal left as it was."""

import os
import subprocess
import threading

import pytest

from support.pseudo_terminal import Terminal

ADDRESS = "--server-address"


@pytest.fixture
def terminal(tetra_command, tetra_environment):
    """Run ``tetra`` on a pseudo-terminal."""
    opened = []

    def start(*args, rows=24, columns=80, command=(), **env):
        command = command or [*tetra_command, *args]
        opened.append(Terminal(command, tetra_environment(**env), rows, columns))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def address(serve, gateway_of, make_event):
    """A gateway with a process or two, of which the second has control characters in its
    arguments."""
    events = [make_event(pid) for pid in (1, 2)]
    for event in events:
        event.process_exec.process.exec_id = f"id{event.process_exec.process.pid.value}"
        event.process_exec.process.start_time.seconds = 1_767_225_600
    events[1].process_exec.process.arguments = f"\x1b[2J{'世界' * 60}"
    return serve(gateway_of([events]))


def test_top_does_not_stay_blank_with_epoll_wait_bad_file_descriptor(terminal, address):
    """Beside a gRPC server, as `address` is one here: its fork handlers killed the command now and
    then, before it drew anything. It starts without them: see `Terminal`."""
    forks = []
    os.register_at_fork(before=lambda: forks.append(1))
    screen = terminal("top", ADDRESS, address)
    screen.wait_for("BINARY")
    screen.press("q")
    screen.wait_for_raw("\x1b[?1049l")  # back from the alternate screen
    assert screen.process.wait(30) == 0
    assert "epoll_wait" not in screen.raw
    assert not forks


def test_colours_on_a_terminal_and_ctrl_c(terminal, address):
    screen = terminal("getevents", "--last", "2", ADDRESS, address)
    screen.wait_for("\\x1b[2J世界")
    assert "\x1b[32m🚀 process\x1b[0m 1: \x1b[36mroot\x1b[0m" in screen.raw
    assert "\x1b[2J" not in screen.raw
    screen.press("\x03")
    assert screen.process.wait(30) == 0


def test_compact_on_a_terminal(terminal, address):
    screen = terminal("getevents", "-o", "compact", "--last", "2", ADDRESS, address)
    screen.wait_for("process node1 /usr/bin/true 1")
    screen.wait_for("2J世界")
    assert "\x1b[34m🚀 process\x1b[0m \x1b[32mnode1\x1b[0m \x1b[35m/usr/bin/true" in screen.raw
    assert "\x1b[2J" not in screen.raw


def test_lines_are_cut_to_the_terminal_unless_wide(terminal, address):
    screen = terminal("getevents", "--last", "2", ADDRESS, address, columns=40)
    lines = screen.wait_until(lambda lines: lines[1])
    assert lines[:3] == [
        "🚀 process 1: root: /usr/bin/true 1",
        "🚀 process 2: root: /usr/bin/true \\x1b[…",
        "",
    ]
    wide = terminal("getevents", "--wide", "--last", "2", ADDRESS, address, columns=40)
    wide.wait_until(lambda lines: lines[3].startswith("世界世界"))


def test_progress_is_shown_on_a_terminal_until_the_first_event(
    terminal, serve, gateway_of, make_event
):
    gateway = gateway_of([[make_event(1)]])
    gateway.scan = (250_000, 1_000_000)
    screen = terminal("getevents", "--last", "1", ADDRESS, serve(gateway))
    screen.wait_for("tetra: reading the past: 25 % of 1,000,000 messages")
    gateway.scanned.set()
    lines = screen.wait_for("process 1: root: /usr/bin/true 1")
    assert not any("reading the past" in line for line in lines)


def test_progress_is_not_written_to_a_file(serve, gateway_of, make_event, tetra):
    gateway = gateway_of([[make_event(1)]])
    gateway.scan = (250_000, 1_000_000)
    threading.Timer(1.5, gateway.scanned.set).start()
    done = tetra("getevents", "--last", "1", "--no-follow", ADDRESS, serve(gateway))
    assert (done.stdout, done.stderr) == ("🚀 process 1: root: /usr/bin/true 1\n", "")


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_it_is_not_wanted(terminal, address, env):
    screen = terminal("getevents", "--last", "2", ADDRESS, address, **env)
    lines = screen.wait_for("\\x1b[2J世界")
    assert lines[0].endswith("process 1: root: /usr/bin/true 1")
    assert "\x1b" not in screen.raw


def test_terminal_is_not_read_as_events(terminal, address):
    screen = terminal("getevents", "--last", "2", TETRA_SERVER_ADDRESS=address)
    screen.wait_for("process 1: root: /usr/bin/true 1")


def test_tree_of_events_fits_the_terminal(terminal, address):
    args = ("getevents", "--last", "2", "--no-follow", "-o", "tree", ADDRESS, address)
    lines = terminal(*args, columns=40).wait_for("2: root")
    assert lines[0] == "1: root: /usr/bin/true 1 (running)"
    assert lines[1] == "2: root: /usr/bin/true \\x1b[2… (running)"


def top_is_laid_out(rows, columns):
    """Return a test for a `top` of this size: every line in its place, nothing wrapped."""

    def test(lines):
        return (
            len(lines) == rows
            and lines[0].startswith("tetra top   127.0.0.1:")
            and lines[1].startswith("starts ")
            and lines[2].startswith("BINARY")
            and lines[2].endswith("STARTED")
            and len(lines[2]) == columns
            and lines[3].startswith("/usr/bin/true")
            and lines[3].endswith(" 2")
            and len(lines[3]) == columns
            and lines[5].split() == ["PID", "USER", "RUNNING", "LONGEST", "RUNNING"]
            and lines[7].startswith("       2  root        ")
            and lines[7].endswith("…")
            and not any(lines[8 : rows - 1])
            and lines[rows - 1].startswith("q quit   b binary")
        )

    return test


def tree_is_laid_out(rows, columns):
    """Return a test for a `tree` of this size: every line in its place, nothing wrapped."""

    def test(lines):
        return (
            len(lines) == rows
            and lines[0].startswith("tetra tree   127.0.0.1:")
            and lines[1].startswith("1: root: /usr/bin/true 1   ")
            and lines[1][-1] in "hms"
            and len(lines[1]) == columns
            and lines[2].startswith("2: root: /usr/bin/true \\x1b[2J世")
            and "…" in lines[2]
            and lines[2].split()[-1] == lines[1].split()[-1]
            and not any(lines[3 : rows - 1])
            and lines[rows - 1].startswith("q quit   ↑↓")
        )

    return test


@pytest.mark.parametrize(
    ("command", "is_laid_out"), [("top", top_is_laid_out), ("tree", tree_is_laid_out)]
)
def test_full_screen_follows_keys_and_size_and_restores_the_terminal(
    terminal, address, command, is_laid_out
):
    screen = terminal(command, ADDRESS, address, COLUMNS="50", LINES="10")
    screen.wait_until(is_laid_out(24, 80))
    screen.resize(14, 60)
    screen.wait_until(is_laid_out(14, 60))
    screen.resize(30, 100)
    screen.wait_until(is_laid_out(30, 100))
    screen.press("u" if command == "top" else "p")
    screen.wait_for("USER   " if command == "top" else "tetra tree paused")
    assert "\x1b[2J" not in screen.raw.replace("\x1b[H\x1b[2J", "")
    screen.press("q")
    screen.wait_for_raw("\x1b[?1049l")  # back from the alternate screen
    assert screen.process.wait(30) == 0
    assert screen.modes == screen.before


@pytest.mark.parametrize("command", ["top", "tree"])
def test_tiny_terminal_is_not_an_error(terminal, address, command):
    screen = terminal(command, ADDRESS, address, rows=3, columns=8)
    screen.wait_for("q quit")
    screen.press("q")
    screen.wait_for_raw("\x1b[?1049l")
    assert screen.process.wait(30) == 0


@pytest.mark.parametrize("command", ["top", "tree"])
def test_ctrl_c_restores_the_terminal(terminal, address, command):
    screen = terminal(command, ADDRESS, address)
    screen.wait_for("q quit")
    screen.press("\x03")
    screen.wait_for_raw("\x1b[?1049l")
    assert screen.process.wait(30) == 0
    assert screen.modes == screen.before


@pytest.mark.parametrize("command", ["top", "tree"])
def test_ctrl_z_restores_the_terminal_and_fg_resumes_the_screen(
    terminal, address, command, tetra_command
):
    screen = terminal(command=["bash", "--norc", "-i"], PS1="$ ")
    screen.wait_for("$")
    screen.press(" ".join([*tetra_command, command, ADDRESS, address]) + "\n")
    screen.wait_for("q quit")
    screen.press("\x1a")
    screen.wait_for("Stopped")
    assert "\x1b[?1049l" in screen.raw
    written = len(screen.raw)
    screen.press("fg\n")
    screen.wait_until(lambda lines: "q quit" in screen.raw[written:])
    screen.press("q")
    screen.wait_until(lambda lines: "\x1b[?1049l" in screen.raw[written:])


def test_full_screen_without_a_server_is_one_line(terminal):
    screen = terminal("top", ADDRESS, "127.0.0.1:1")
    screen.wait_for("tetra: error: connect: 127.0.0.1:1: connection refused")
    assert screen.process.wait(30) == 1
    assert screen.modes == screen.before


def test_full_screen_on_a_dumb_terminal_is_refused(terminal):
    screen = terminal("top", ADDRESS, "127.0.0.1:1", TERM="dumb")
    screen.wait_until(
        lambda lines: (
            "more than TERM=dumb; for example: tetra top --once" in "".join(line for line in lines)
        )
    )
    assert screen.process.wait(30) == 2


def test_full_screen_without_unicode(terminal, address):
    screen = terminal("tree", ADDRESS, address, PYTHONIOENCODING="iso-8859-1")
    lines = screen.wait_for(r"2: root: /usr/bin/true \x1b[2J\u4e16\u754c")
    assert lines[0].startswith("tetra tree   ")
    assert lines[2].split()[-1] == lines[1].split()[-1]
    assert lines[-1].startswith("q quit   arrows")
    screen.press("q")
    screen.wait_for_raw("\x1b[?1049l")


def test_pipe_through_head(start_tetra, address):
    first = start_tetra("getevents", "--last", "2", ADDRESS, address)
    done = subprocess.run(["head", "-n", "1"], stdin=first.stdout, capture_output=True, timeout=30)
    assert done.stdout.decode() == "🚀 process 1: root: /usr/bin/true 1\n"
