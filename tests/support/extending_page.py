"""The diffs of docs/extending.md, and how to apply them to a copy of files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extending.md"
_NO_FILE = "/dev/null"


def diffs() -> Iterator[tuple[str, str, bool]]:
    """Yield each diff of the page with the file it changes and whether it adds that file."""
    texts = re.findall(r"^```diff\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for text in texts:
        found = re.match(r"--- (?:a/)?(\S+)\n\+\+\+ b/(\S+)\n@@ ", text)
        assert found, f"not a diff that git apply reads:\n{text}"
        yield text, found[2], found[1] == _NO_FILE


def apply_to(top: Path) -> None:
    """Apply all diffs, in their order, below ``top``; copy the files there that are missing."""
    assert shutil.which("git"), "git is missing: install it, this test runs `git apply`"
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
