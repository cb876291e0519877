"""Completion in the shells themselves: scripts are loaded, words are typed, tab is pressed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.pseudo_terminal import Terminal
from tetra.v1.node_pb2 import NodeInfo

# Words typed, and what the shell makes of them.
CASES = [
    ("tetra getev", "tetra getevents"),
    ("tetra getevents --reconnect-", "tetra getevents --reconnect-wait"),
    ("tetra getevents --output js", "tetra getevents --output json"),
    ("tetra getevents -o lif", "tetra getevents -o lifecycle"),
    ("tetra --debug loglevel se", "tetra --debug loglevel set"),
    ("tetra completion zs", "tetra completion zsh"),
    ("tetra help doc", "tetra help doctor"),
    ("tetra status --tls-cert-file one-cert", "tetra status --tls-cert-file one-certificate.pem"),
    ("tetra top --by cont", "tetra top --by container"),
    ("tetra nodes --server-address x --out", "tetra nodes --server-address x --output"),
]
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def needs(shell):
    missing = not shutil.which(shell)
    if missing and os.environ.get("TETRA_REQUIRE_SHELLS") == "1":
        pytest.fail(f"{shell} is not installed, and TETRA_REQUIRE_SHELLS=1")
    if missing:
        pytest.skip(f"needs {shell}; TETRA_REQUIRE_SHELLS=1 makes that a failure")


@pytest.fixture(scope="module")
def folder(tetra_command, tetra_environment, tmp_path_factory):
    """A folder with the three scripts, and a file to be completed."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        with (folder / f"tetra.{shell}").open("wb") as script:
            command = [*tetra_command, "completion", shell]
            env = tetra_environment(PATH=PATH)
            subprocess.run(command, env=env, stdout=script, check=True, timeout=60)
    (folder / "one-certificate.pem").touch()
    return folder


@pytest.fixture
def shell(tetra_environment, folder):
    """Start an interactive shell without a configuration, in the folder."""
    opened = []

    def start(*command):
        env = tetra_environment(PS1="$ ", HOME=str(folder), ZDOTDIR=str(folder), PATH=PATH)
        opened.append(Terminal(["env", "-C", folder, *command], env, columns=120))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.mark.parametrize(("words", "completed"), CASES)
def test_bash(shell, words, completed):
    terminal = shell("bash", "--norc", "-i")
    terminal.press("source tetra.bash; clear; echo ready\n")
    terminal.wait_until(lambda lines: lines[0] == "ready" and lines[1].endswith("$"))
    terminal.press(f"{words}\t")
    terminal.wait_until(lambda lines: lines[1] == f"$ {completed}")


@pytest.mark.parametrize(("words", "completed"), CASES)
def test_zsh(shell, words, completed):
    needs("zsh")
    terminal = shell("zsh", "-f", "-i")
    terminal.press("autoload -U compinit; compinit -u -D; source ./tetra.zsh; clear; echo ready\n")
    terminal.wait_until(lambda lines: lines[0] == "ready" and lines[1].endswith("$"))
    terminal.press(f"{words}\t")
    terminal.wait_until(lambda lines: lines[1].endswith(f" {completed}"))


@pytest.mark.parametrize(("words", "completed"), CASES)
def test_fish(folder, words, completed):
    needs("fish")
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source tetra.fish; complete -C '{words}'"],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "PATH": PATH},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    # Each line is a word, a tab and what it means.
    assert completed.split()[-1] in {line.split("\t")[0] for line in done.stdout.splitlines()}


@pytest.fixture
def completed(tetra):
    """Ask ``tetra`` for completions as bash does; returns the words that it offers."""

    def complete(line, **env):
        words = line.split(" ")
        done = tetra(
            _TETRA_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), **env
        )
        assert (done.stderr, done.returncode) == ("", 0)
        return [answer.partition(",")[2] for answer in done.stdout.split()]

    return complete


def test_every_command_and_flag_is_completed(completed, tetra):
    commands = completed("tetra ")
    assert "getevents" in commands
    assert "loglevel" in commands
    help_lines = tetra("getevents", "--help").stdout.splitlines()
    flags = {
        word.rstrip(",")
        for line in help_lines
        if line.startswith("  -")
        for word in line.split("   ")[0].split()
        if word.startswith("--")
    }
    assert len(flags) > 50
    assert flags == {*completed("tetra getevents --")}


def test_names_of_nodes_are_completed_from_the_gateway(completed, serve, gateway_of):
    nodes = [NodeInfo(node_name=name) for name in ("web-1", "web-2", "db-1")]
    address = serve(gateway_of([], nodes=nodes))
    command = f"tetra --server-address {address} getevents --node"
    assert completed(f"{command} web") == ["web-1", "web-2"]
    assert completed("tetra top --node ", TETRA_SERVER_ADDRESS=address) == [
        "db-1",
        "web-1",
        "web-2",
    ]


def test_without_a_gateway_no_node_is_completed(completed):
    assert completed("tetra --server-address 127.0.0.1:1 top --node ") == []
