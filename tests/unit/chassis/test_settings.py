"""What ``--help`` of a service says about defaults."""

from __future__ import annotations

import importlib
import re
from typing import Annotated

import pytest
from pydantic import Field

from chassis.settings import ServiceSettings, load


class Settings(ServiceSettings):
    folder: str = Field("/var/lib/tetra", description="a folder")
    host: str = Field("", description="a host")
    rate: int | None = Field(None, description="a rate")
    labels: Annotated[dict[str, str], Field(default_factory=dict, description="some labels")]


def test_help_names_the_defaults_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(Settings, "test", ["--help"])

    text = " ".join(capsys.readouterr().out.split())
    assert "a folder (default: /var/lib/tetra)" in text
    assert "a host --" in text
    assert "a rate --" in text
    assert text.endswith("some labels")


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TETRA_FOLDER", "/srv")
    monkeypatch.setenv("TETRA_HOST", "h")

    settings = load(Settings, "test", ["--folder", "/tmp"])

    assert (settings.folder, settings.host) == ("/tmp", "h")


SERVICES = {
    "collector": "collector.settings", "gateway": "gateway.settings",
    "exporter": "exporter.settings", "embedded": "embedded.settings",
}  # fmt: skip


@pytest.mark.parametrize("service", SERVICES)
def test_help_names_values_in_words(service, capsys):
    settings = importlib.import_module(SERVICES[service]).Settings
    with pytest.raises(SystemExit):
        load(settings, service, ["--help"])
    printed = capsys.readouterr().out
    values = re.findall(r"^  --[a-z0-9-]+ ([^-\s,]\S*)", printed, re.MULTILINE)
    assert len(values) > 4
    assert [one for one in values if not re.match(r"[A-Z]+[A-Z:,=]*(\[,\.\.\.\])?$|\{", one)] == []
    assert "null" not in printed
