"""Completion in the shells themselves: scripts are loaded, words are typed, tab is pressed."""

import os
import shutil
import subprocess

import pytest

from support.pseudo_terminal import Terminal

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
]


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
            subprocess.run(command, env=tetra_environment(), stdout=script, check=True, timeout=60)
    (folder / "one-certificate.pem").touch()
    return folder


@pytest.fixture
def shell(tetra_environment, folder):
    """Start an interactive shell without a configuration, in the folder."""
    opened = []

    def start(*command):
        env = tetra_environment(PS1="$ ", HOME=str(folder), ZDOTDIR=str(folder))
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
        env={**os.environ, "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    # Each line is a word, a tab and what it means.
    assert completed.split()[-1] in {line.split("\t")[0] for line in done.stdout.splitlines()}


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_every_command_and_flag_is_there(folder, shell_name, tetra):
    script = (folder / f"tetra.{shell_name}").read_text()
    for line in tetra("getevents", "--help").stdout.splitlines():
        for word in line.split():
            if word.startswith("--") and word.strip("-,[]").replace("-", "").isalpha():
                flag = word.strip(",")
                assert flag in script or f"-l {flag[2:]} " in script
