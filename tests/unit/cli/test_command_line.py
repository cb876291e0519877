"""Command lines: help texts with examples, and mistakes that are one line."""

import re
import shlex
import signal
from pathlib import Path

import click
import pytest

from cli.commands import MODULES, tetra, tracingpolicy
from cli.main import main
from cli.reference import MARKER, reference


@pytest.fixture
def run_here(capsys, monkeypatch):
    """Run ``tetra`` in this process; returns exit code, stdout and stderr."""
    monkeypatch.delenv("TETRA_SERVER_ADDRESS", raising=False)
    monkeypatch.delenv("TETRA_TOKEN", raising=False)
    before = signal.getsignal(signal.SIGTERM)

    def run(*args):
        code = main(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield run
    signal.signal(signal.SIGTERM, before)


def assert_is_understood(line):
    """Check that a command line parses: commands, flags, and their values."""
    words = shlex.split(line.removeprefix("source <(").removesuffix(")"))
    words = words[words.index("tetra") + 1 :]
    command, name = tetra(), "tetra"
    parent = None
    while command is not None:
        parent = command.make_context(name, words, parent=parent)
        words = [*parent._protected_args, *parent.args]
        if not isinstance(command, click.Group) or not words:
            assert words == []
            return
        name, command, words = command.resolve_command(parent, words)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("policies", "enable", "nope"),
            "capabilities, syscalls); for example: tetra policies enable files",
        ),
        (
            ("getevents", "--cel", "x"),
            "--cel, did you mean --cel-expression? (see tetra getevents --help); for example: "
            "tetra getevents --cel-expression 'process_exec.process.pid > uint(1)'",
        ),
        (
            ("getevents", "--count-by", "binary", "--last", "5"),
            "for example: tetra getevents --count-by binary --since 1h",
        ),
        (
            ("policies", "enable", "files", "--set", "paths="),
            "--set: paths: the value is empty (al",
        ),
        (
            ("policies", "enable", "host", "--set", "paths=/x"),
            "--set: host has no parameter 'paths'",
        ),
        (("tp", "add", "--canary", "200%", "x"), "tetra tp add policy.yaml --canary 5%"),
        (
            ("getevents", "-f", "process.foo"),
            "--include-fields: no event has a field 'process.foo'",
        ),
        (("getevents", "--exclude-fields", "pid"), "--exclude-fields: no event has a field 'pid'"),
        (("getevents", "--folow"), "unknown flag --folow, did you mean --follow? (see"),
        (("getevents", "--frob"), "unknown flag --frob (see tetra getevents --help); for"),
        (("getevents", "--user"), "unknown flag --user (see tetra getevents --help); for"),
        (("top", "--frob"), "unknown flag --frob (see tetra top --help); for"),
        (("status", "--node"), "unknown flag --node (see tetra status --help); for"),
        (("profile", "show", "/a\udcff"), "EXECUTABLE|UNIT|CONTAINER: /a\\xff: not UTF-8: events"),
        (("getevents", "--process", "\udcff"), "--processes: \\xff: not UTF-8: events have"),
        (("getevents", "--event-types", "\udcff"), "--event-types: \\xff: not UTF-8: events"),
        (("tp", "delete", "\udcff"), "NAME...: \\xff: not UTF-8: events have the char"),
        (
            ("getevents", "-o", "xml"),
            "-o/--output: 'xml' is not lifecycle, json, compact or tree; for",
        ),
        (("nosuch",), "unknown command 'nosuch': it is getevents, tree, top, nodes, "),
        (("getevnts",), "unknown command 'getevnts', did you mean getevents?; for example: tetra"),
        (("sensors", "list"), "'sensors': tetra tracingpolicy list shows what is loaded"),
        (("tp",), "tp: add|delete|enable|disable|set-mode|configure|list|status|check|explain|"),
        (
            ("tp", "delete"),
            "tp delete: NAME... is missing; for example: tetra tracingpolicy delete",
        ),
        (("tp", "set-mode", "x", "loud"), "MODE: 'loud' is not enforce or monitor; for example"),
        (("tp", "add", "/dev/null", "--canary", "0"), "--canary: '0' is not above 0 % and up to"),
        (("tp", "add", "/dev/null", "--label", "x"), "--label: 'x' is not KEY=VALUE; for exampl"),
        (("tp", "add", "/dev/null", "--max-hits", "9"), "--max-hits, --max-lost: limits of a can"),
        (("tp", "configure", "x"), "configure: nothing to change; for example: tetra tracingpol"),
        (("tp", "check"), "tp check: FILE... is missing; for example: tetra tracingpolicy check p"),
        (("help", "tp", "check", "x"), "tetra tp check: it has no commands; for example: tetra"),
        (("bugtool",), "unknown command 'bugtool': tetra doctor checks a host"),
        (("help", "nosuch"), "unknown command 'nosuch'"),
        (
            ("getevents", "now"),
            "getevents: unexpected argument 'now'; for example: tetra getevents",
        ),
        (("nodes", "--last", "3"), "nodes: unknown flag --last (see tetra nodes --help); for exam"),
        (("--zzz",), "unknown flag --zzz (see tetra --help); for example: tetra getevents"),
        (
            ("getevents", "--last"),
            "--last: its value is missing; for example: tetra getevents --last 10",
        ),
        (
            ("getevents", "--last", "x"),
            "--last: 'x' is not a whole number; for example: tetra getevents --last 10",
        ),
        (("getevents", "--last", "9" * 30), "--last: must be at least 1, and less than 2^64"),
        (("getevents", "--host=maybe"), "--host: 'maybe' is neither true nor false; for example"),
        (("loglevel",), "loglevel: get|set is missing; for example: tetra loglevel get"),
        (("loglevel", "set", "loud"), "LEVEL: 'loud' is not trace, debug, info, warn, warning"),
        (("completion", "csh"), "SHELL: 'csh' is not bash, zsh or fish; for example: "),
        (("getevents", "--since", "soon"), "--since: time 'soon': not understood (allowed: 10m"),
        (
            ("getevents", "--since", "-5m"),
            "--since: time '-5m': durations count back from now without a sign; ",
        ),
        (("getevents", "--until", "-1h30m"), "for example: tetra getevents --until 1h30m"),
        (("getevents", "--reconnect=maybe"), "--reconnect: 'maybe' is neither true nor false"),
        (("getevents", "--follow=1"), "--follow: it takes no value; for example: tetra getevents"),
        (
            ("status", "--retries", "x"),
            "--retries: 'x' is not a whole number; for example: tetra s",
        ),
        (("--timeout", "x", "status"), "--timeout: duration 'x': not a number with a unit"),
        (("loglevel", "set"), "loglevel set: LEVEL is missing; for example: tetra loglevel set"),
        (("loglevel", "gte"), "unknown command 'gte', did you mean get?; for example: tetra logl"),
        (
            ("getevents", "--after", "x"),
            "--after: 'x' is not a cursor (--show-cursor prints one); f",
        ),
        (("getevents", "--last", "0"), "--last: must be at least 1, and less than 2^64; for"),
        (
            ("getevents", "--format", "pid", "-o", "json"),
            "--format and --output: choose one",
        ),
        (("getevents", "-f", "process..pid"), "'process..pid': empty name in it; for exa"),
        (("getevents", "-F", "process,"), "'': empty name in it; for example: tetra getev"),
        (("getevents", "--no-follow"), "--no-follow: prints nothing without a beginning"),
        (("getevents", "--since", "1m", "--last", "3"), "--since and --last: a stream has one"),
        (("getevents", "-e", "FOO"), "--event-types: 'FOO' is not an event type; for example"),
        (("getevents", "--pid", "x"), "--pid: 'x' is not a process id; for example"),
        (("getevents", "--process", "a("), "regular expression 'a(': missing )"),
        (("getevents", "--capabilities", "CAP_X"), "'CAP_X' is not a capability; for example"),
        (("status", "--server-address", "http://x"), "no scheme is needed (allowed: host:port,"),
        (("status", "--server-address", "x:99999"), "port 99999 is not in 1-65535"),
        (("status", "--timeout", "5"), "duration '5': not a number with a unit (allowed: 10m"),
        (("status", "--tls-ca-cert-files", "/nonexistent"), "/nonexistent: no such file"),
        (("status", "--tls-ca-cert-files", "/etc/passwd"), "/etc/passwd: not a PEM file"),
        (("status", "--tls-cert-file", "x"), "one needs the other; for example"),
        (("status", "--token-file", "/nonexistent"), "--token-file: /nonexistent: no such file"),
        (("status", "--token-file", "/dev/null"), "--token-file: /dev/null: not one token"),
        (("status", "--token-file", "/etc/passwd"), "--token-file: /etc/passwd: not one token"),
    ],
)
def test_wrong_command_line_is_one_line_and_exit_code_2(run_here, args, message):
    code, stdout, stderr = run_here(*args)
    assert code == 2
    assert stderr.startswith("tetra: error: ")
    assert message in stderr
    assert stderr.count("\n") == 1
    assert stdout == ""
    example = stderr.rstrip("\n").partition("; for example: ")[2]
    assert re.match(r"(sudo |source <\()?tetra ", example)
    assert_is_understood(example)


def all_commands():
    inner = [f"tracingpolicy {name}" for name in tracingpolicy.COMMAND.list_commands(None)]
    return [*MODULES, *inner]


@pytest.mark.parametrize("command", all_commands())
def test_every_command_has_help_with_examples(run_here, command):
    code, stdout, _ = run_here(*command.split(), "--help")
    assert code == 0
    assert f"Usage: tetra {command} " in stdout
    assert f"examples:\n  tetra {command}" in stdout.replace("sudo ", "").replace("source <(", "")
    assert run_here("help", *command.split()) == (0, stdout, "")


def test_without_a_command_there_is_help(run_here):
    code, stdout, _ = run_here()
    assert (code, stdout) == (0, run_here("--help")[1])
    assert "examples:\n  tetra getevents" in stdout


def test_reference_in_the_docs_is_the_parsers():
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    found = page.partition(MARKER)[2]
    assert found == reference(), "run .venv/bin/python -m cli.reference docs/cli.md"
