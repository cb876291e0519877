"""The diffs of docs/extending.md apply to the current files, all together and in their order."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extending.md"
NO_FILE = "/dev/null"


def diffs():
    """Return each diff of the page with the file it changes and whether it adds that file."""
    texts = re.findall(r"^```diff\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for text in texts:
        found = re.match(r"--- (?:a/)?(\S+)\n\+\+\+ b/(\S+)\n@@ ", text)
        assert found, f"not a diff that git apply reads:\n{text}"
        yield text, found[2], found[1] == NO_FILE


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """Return a copy of the files that the page names, with all its diffs applied."""
    assert shutil.which("git"), "git is missing: install it, this test runs `git apply`"
    top = tmp_path_factory.mktemp("extending")
    # Inside of a repository, git apply would skip files outside of its tree.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(top.parent)}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        environment.pop(name, None)
    for text, name, added in diffs():
        target = top / name
        assert added != (ROOT / name).exists(), f"{name}: added by the page, or missing in the tree"
        if not added and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
        done = subprocess.run(
            ["git", "apply", "-"],
            input=text, cwd=top, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"docs/extending.md: {name}: {done.stderr}\n{text}"
    return top


def test_every_file_of_the_page_is_changed(changed):
    names = {name for _text, name, _added in diffs()}
    assert len(names) >= 14
    for name in names:
        old = ROOT / name
        assert not old.exists() or old.read_bytes() != (changed / name).read_bytes()


def test_python_of_the_page_compiles(changed):
    modules = list(changed.rglob("*.py"))
    assert modules
    for module in modules:
        compile(module.read_bytes(), str(module), "exec")


def test_kind_of_record_has_a_number_of_its_own(changed):
    text = (changed / "bpf/lib/events.h").read_text()
    numbers = dict(re.findall(r"\b(RECORD_\w+) = (\d+)", text))
    assert "RECORD_RENAME" in numbers
    assert len(set(numbers.values())) == len(numbers)


def test_slots_of_loss_are_counted(changed):
    slots = re.findall(r"^\t(LOST_\w+),", (changed / "bpf/lib/values.h").read_text(), re.MULTILINE)
    base = (changed / "services/collector/src/collector/bpf/base.py").read_text()
    assert f"\nLOSSES = {len(slots)} " in base
    assert f'`{{"kernel_rename": ({slots.index("LOST_RENAME")},)}}`' in PAGE.read_text()


def test_field_has_a_number_of_its_own(changed):
    text = (changed / "proto/tetragon/events.proto").read_text()
    found = re.search(r"^message Filter \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    assert found
    numbers = re.findall(r"^  .* = (\d+)(?: \[.*\])?;", found[1], re.MULTILINE)
    assert "10020" in numbers
    assert len(set(numbers)) == len(numbers)
