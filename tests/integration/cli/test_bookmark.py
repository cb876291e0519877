"""``--cursor-file``: killed whenever it may be, each event is printed once."""

import fcntl
import json
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from support.waiting import wait_until

FLAGS = ("--no-follow", "--last", "9999")


@pytest.fixture
def batches(make_event):
    """4000 events in batches of 20."""
    return [[make_event(n + i) for i in range(20)] for n in range(1, 4001, 20)]


@pytest.fixture
def address(serve, gateway_of, batches):
    """A gateway that sends them slowly enough for a kill in the middle."""
    gateway = gateway_of(batches)
    gateway.pause_s = 0.005
    return serve(gateway)


def printed(output: Path):
    return [int(line.split()[-1]) for line in output.read_text().splitlines()]


def appended(start_tetra, output, *arguments):
    """Start the command with its output appended to a file."""
    with output.open("ab") as file:
        return start_tetra("getevents", *arguments, stdout=file)


def wait_for_growth(process, output, more):
    deadline = time.monotonic() + 30
    beyond = output.stat().st_size + more
    while output.stat().st_size < beyond and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_file_has_each_event_once_after_repeated_kills(address, start_tetra, tmp_path):
    output, place = tmp_path / "events", tmp_path / "place"
    output.write_text("")
    flags = ("--server-address", address, "--cursor-file", str(place), *FLAGS)
    kills = 0
    for more in (1, 3_000, 9_000, 20_000, 500):
        process = appended(start_tetra, output, *flags)
        wait_for_growth(process, output, more)
        kills += process.poll() is None
        process.kill()
        process.wait(30)
    process = appended(start_tetra, output, *flags)
    assert process.wait(60) == 0
    assert kills >= 3
    assert printed(output) == list(range(1, 4001))
    assert b"bytes after the cursor from standard output" in process.stderr.read()


def test_earlier_content_of_the_file_stays(address, start_tetra, tmp_path):
    output, place = tmp_path / "events", tmp_path / "place"
    output.write_text("0\n")
    flags = ("--server-address", address, "--cursor-file", str(place), *FLAGS)
    process = appended(start_tetra, output, *flags)
    wait_for_growth(process, output, 1)
    process.kill()
    process.wait(30)
    assert appended(start_tetra, output, *flags).wait(60) == 0
    assert printed(output) == list(range(4001))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_end_needs_no_cut(address, start_tetra, tmp_path, number):
    output, place = tmp_path / "events", tmp_path / "place"
    output.write_text("")
    flags = ("--server-address", address, "--cursor-file", str(place), *FLAGS)
    process = appended(start_tetra, output, *flags)
    wait_for_growth(process, output, 1000)
    process.send_signal(number)
    assert process.wait(30) == 0
    process = appended(start_tetra, output, *flags)
    assert process.wait(60) == 0
    assert printed(output) == list(range(1, 4001))


def test_a_pipe_gets_at_most_one_batch_twice(address, start_tetra, tmp_path):
    place = tmp_path / "place"
    flags = ("--server-address", address, "--cursor-file", str(place), *FLAGS)
    process = start_tetra("getevents", *flags)
    first = [process.stdout.readline() for _ in range(1000)]
    process.kill()
    process.wait(30)
    first += process.stdout.read().splitlines(keepends=True)
    rest = start_tetra("getevents", *flags).communicate(timeout=60)[0].splitlines(keepends=True)
    numbers = [int(line.split()[-1]) for line in (*first, *rest)]
    assert sorted(set(numbers)) == list(range(1, 4001))
    assert 4000 <= len(numbers) <= 4000 + 20


def test_a_new_output_begins_after_the_cursor(serve, gateway_of, make_event, tetra, tmp_path):
    gateway = gateway_of([[make_event(1)], [make_event(2)]])
    flags = ("--server-address", serve(gateway), "--cursor-file", str(tmp_path / "place"))
    assert tetra("getevents", *flags, *FLAGS).stdout.count("\n") == 2
    gateway.batches.append([make_event(3)])
    done = tetra("getevents", *flags, *FLAGS)
    assert (done.stdout, done.stderr) == ("🚀 process 3: root: /usr/bin/true 3\n", "")
    assert gateway.requests[-1].after.stream_sequence == 2


def test_since_applies_after_the_cursor(serve, gateway_of, make_event, tetra, tmp_path):
    """A gateway's first cursor lies before the time that was asked for."""
    place = tmp_path / "place"
    gateway = gateway_of([[make_event(1), make_event(2)]])
    flags = ("--server-address", serve(gateway), "--cursor-file", str(place), "--no-follow")
    since_ns = 1_767_225_600_000_000_002  # of event 2
    record = {"cursor": "1:0", "since_ns": since_ns, "output": None}
    place.write_text(json.dumps(record))
    assert tetra("getevents", *flags).stdout == "🚀 process 2: root: /usr/bin/true 2\n"


def test_a_killed_snapshot_starts_again(serve, gateway_of, make_event, start_tetra, tmp_path):
    output, place = tmp_path / "events", tmp_path / "place"
    output.write_text("")
    gateway = gateway_of([[make_event(1)]])
    gateway.snapshot = [make_event(n) for n in range(10, 60)]
    address = serve(gateway)
    flags = ("--server-address", address, "--cursor-file", str(place), "--snapshot")

    def asked_and_printed(calls):
        return len(gateway.requests) == calls and output.stat().st_size >= 500

    for calls in (1, 2):
        process = appended(start_tetra, output, *flags)
        # What the one before has printed is removed before the call.
        wait_until(partial(asked_and_printed, calls), 60, lambda: gateway.requests)
        process.kill()
        process.wait(30)
    assert all(request.snapshot for request in gateway.requests)
    numbers = printed(output)
    assert len(numbers) == len(set(numbers))


def test_one_cursor_file_has_one_user(tetra, tmp_path):
    place = tmp_path / "place"
    with place.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = tetra("getevents", "--cursor-file", str(place))
    assert done.returncode == 1
    assert done.stderr == f"tetra: error: --cursor-file: {place}: another tetra is using it\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "tree"), "a tree is printed only at the end"),
        (("--after", "1:1"), "--after and --cursor-file: a stream has one beginning"),
        (("--no-follow",), "--no-follow: prints nothing without a beginning"),
    ],
)
def test_flags_that_exclude_each_other(tetra, tmp_path, arguments, message):
    done = tetra("getevents", "--cursor-file", str(tmp_path / "place"), *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_file_that_does_not_exist(tetra, tmp_path):
    place = tmp_path / "events.json"
    place.write_text('{"process_exec": 1}\n')
    done = tetra("getevents", "--cursor-file", str(place))
    assert done.returncode == 2
    assert "not a cursor file" in done.stderr
    assert place.read_text() == '{"process_exec": 1}\n'
    missing = tetra("getevents", "--cursor-file", str(tmp_path / "no" / "place"))
    assert missing.returncode == 1
    assert "no such file or directory" in missing.stderr


def test_a_plain_tetragon_has_no_cursors(serve, plain_tetragon_of, make_event, tetra, tmp_path):
    address = serve(plain_tetragon_of([make_event(1)]))
    done = tetra("getevents", "--server-address", address, "--cursor-file", str(tmp_path / "place"))
    assert done.returncode == 1
    assert "is a plain Tetragon, which has no cursors" in done.stderr
