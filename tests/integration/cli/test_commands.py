"""The small commands, and command lines that are wrong."""

import pytest

from cli import __version__


def test_version(serve, plain_tetragon_of, tetra):
    assert tetra("version").stdout == f"CLI version: {__version__}\n"
    address = serve(plain_tetragon_of([]))
    done = tetra("version", "--server", "--server-address", address)
    assert done.stdout == f"CLI version: {__version__}\nServer version: v9.9.9\n"


def test_status(serve, plain_tetragon_of, tetra):
    done = tetra("--server-address", serve(plain_tetragon_of([])), "status")
    assert (done.stdout, done.returncode) == ("Health Status: running\n", 0)


def test_nobody_at_the_address_is_one_line_and_exit_code_1(tetra):
    done = tetra("status", "--server-address", "127.0.0.1:1", "--retries", "0")
    assert done.returncode == 1
    assert done.stderr == (
        "tetra: error: connect: 127.0.0.1:1: connection refused; is the gateway running there?\n"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("getevents", "--folow"), "unknown flag --folow, did you mean --follow? (see"),
        (("getevents", "-o", "xml"), "-o/--output: invalid choice: 'xml'"),
        (("nosuch",), "invalid choice: 'nosuch'"),
        (("getevents", "--since", "soon"), "--since: time 'soon': not understood; for example"),
        (("getevents", "--after", "x"), "--after: 'x' is not a cursor; for example: --after 8"),
        (("getevents", "--last", "0"), "--last: must be at least 1; for example"),
        (("getevents", "--no-follow"), "--no-follow: shows nothing without a beginning"),
        (("getevents", "--since", "1m", "--last", "3"), "--since and --last: there is one"),
        (("getevents", "-e", "FOO"), "--event-types: 'FOO' is not an event type; for example"),
        (("getevents", "--pid", "x"), "--pid: 'x' is not a process id; for example"),
        (("getevents", "--process", "a("), "regular expression 'a(': missing )"),
        (("getevents", "--capabilities", "CAP_X"), "'CAP_X' is not a capability; for example"),
        (("status", "--server-address", "http://x"), "no scheme is needed; for example"),
        (("status", "--server-address", "x:99999"), "port 99999 is not in 1-65535"),
        (("status", "--timeout", "5"), "duration '5': not a number with a unit; for example"),
        (("status", "--tls-ca-cert-files", "/nonexistent"), "/nonexistent: no such file"),
        (("status", "--tls-ca-cert-files", "/etc/passwd"), "/etc/passwd: not a PEM file"),
        (("status", "--tls-cert-file", "x"), "one needs the other; for example"),
    ],
)
def test_wrong_command_line_is_one_line_and_exit_code_2(tetra, args, message):
    done = tetra(*args)
    assert done.returncode == 2
    assert done.stderr.startswith("tetra: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
