"""The lima file: what can be known of it without a Mac."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy/lima/tetra.yaml").read_text()


def scripts():
    """Return the scripts with lima's template words filled in."""
    found = re.findall(r"^( *)script: \|\n((?:\1  .*\n|\n)+)", TEXT, re.MULTILINE)
    return [
        re.sub(r"\{\{[^}]*\}\}", "word", re.sub(rf"^{indent}  ", "", body, flags=re.MULTILINE))
        for indent, body in found
    ]


@pytest.mark.parametrize("script", scripts())
def test_scripts_are_bash(script):
    assert script.startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_there_is_a_script_to_set_up_and_one_to_wait():
    assert len(scripts()) == 2


def test_readme_sets_a_parameter_that_the_file_has_and_mounts():
    (name,) = re.findall(r'--set "\.param\.(\w+) = ', (ROOT / "README.md").read_text())
    assert re.search(rf"^  {name}: ", TEXT, re.MULTILINE)
    assert f'- location: "{{{{.Param.{name}}}}}"' in TEXT
    assert f'cd "{{{{.Param.{name}}}}}"' in TEXT


def test_every_image_of_the_script_is_built_by_compose():
    built = set(re.findall(r"image: (tetra-\w+)", (ROOT / "compose.yaml").read_text()))
    (looked_for,) = re.findall(r"docker image inspect ((?:tetra-\w+ ?)+)", TEXT)
    assert set(looked_for.split()) == built
