"""What ``--help`` of a service says about defaults."""

from __future__ import annotations

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
