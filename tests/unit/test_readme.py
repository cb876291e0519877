"""The README is correct: its targets, commands, settings and sample output are real."""

import importlib
import re
import shlex
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from cli.main import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent

# The class that knows a setting, by the name in the table's second column. The command `tetra`
# declares its flags with argparse and is asked for its help instead.
SETTINGS = {
    "collector": "collector.settings",
    "gateway": "gateway.settings",
    "make run": "embedded.settings",
}
# From the environment without the prefix, as Tetragon reads it.
UNPREFIXED = {"NODE_NAME"}


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def settings_table() -> list[tuple[str, str, str]]:
    """Return (setting, of, default) for each row and each of its owners."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", README, re.MULTILINE)
    return [
        (name, owner.strip(" `"), default.strip(" `"))
        for name, owners, default in rows
        for owner in owners.split(",")
    ]


def test_sample_output_reads_like_the_life_cycle():
    first, *_ = code_blocks("")
    line = re.compile(r"(🚀 process|💥 exit) (\d+): (\w+): (/\S+)(.*)")
    alive = set()
    for text in first.splitlines():
        match = line.fullmatch(text)
        assert match, text
        kind, pid, *_ = match.groups()
        if kind == "🚀 process":
            alive.add(pid)
        else:
            alive.remove(pid)
    assert not alive


def test_make_targets_exist_and_have_help():
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    targets = set(re.findall(r"^  (\S+)", listed, re.MULTILINE))
    used = set()
    for document in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        text = (ROOT / document).read_text()
        used |= set(re.findall(r"(?:`|sudo |^)make ([a-z-]+)", text, re.MULTILINE))
    assert used <= targets
    assert {"setup", "run", "test", "lint", "types"} <= targets


@pytest.mark.parametrize(("setting", "owner", "default"), settings_table())
def test_setting_exists_with_its_default(setting, owner, default):
    if owner == "tetra":
        shown = subprocess.run([BIN / "tetra", "status", "--help"], capture_output=True, text=True)
        assert setting in shown.stdout
        assert default in shown.stdout
        return
    settings = importlib.import_module(SETTINGS[owner]).Settings
    fields = settings.model_fields
    if setting in UNPREFIXED:
        assert setting in f"{settings.__doc__} {fields.get('node_name')}"
        return
    assert str(fields[setting.removeprefix("TETRA_").lower()].default) == default


def test_settings_table_was_found():
    assert len(settings_table()) >= 10


def test_tetra_commands_are_understood(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", StringIO())
    before = signal.getsignal(signal.SIGTERM)
    commands = re.findall(r"^\.venv/bin/tetra (.*)$", "\n".join(code_blocks("sh")), re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        # No server listens there: the flags are accepted, and only the connection fails.
        assert main([*shlex.split(command), "--server-address", "127.0.0.1:1"])
        assert "connect" in capsys.readouterr().err, command
    signal.signal(signal.SIGTERM, before)


def test_linked_files_exist():
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^):#]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"
