"""Settings that documents name exist, and every setting has its line in docs/settings.md."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from collector.settings import Settings as Collector
from embedded.settings import Settings as Embedded
from exporter.settings import Settings as Exporter
from gateway.settings import Settings as Gateway

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"\bTETRA_[A-Z0-9_]*[A-Z0-9]\b(?!_)")
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "SECURITY.md"]
EXAMPLE = "TETRA_NAME"  # stands for any


def test_page_of_settings_is_current(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["settings", "--check"])
    script = runpy.run_path(str(ROOT / "scripts" / "settings"))
    assert (script["main"](), capsys.readouterr().err) == (0, "")


@pytest.fixture(scope="module")
def known():
    """Names of settings, and of what else reads the environment: Compose, the client, NATS."""
    found = {
        f"TETRA_{name.upper()}"
        for settings in (Collector, Gateway, Exporter, Embedded)
        for name in settings.model_fields
    }
    sources = [*ROOT.glob("compose*.yaml"), *(ROOT / "deploy").rglob("*")]
    for part in ("services/cli/src", "libs/bus/src", "embedded/src"):
        sources += (ROOT / part).rglob("*.py")
    for file in sources:
        if file.is_file():
            found.update(NAME.findall(file.read_text(errors="replace")))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_a_page_names_exist(page, known):
    assert set(NAME.findall(page.read_text())) - known - {EXAMPLE} == set()
