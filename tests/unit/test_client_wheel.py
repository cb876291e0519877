"""The client's wheel has the packages of this workspace that it needs, and asks for the others."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "deploy" / "client"


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text())


def needed():
    """Return the workspace's packages that the client needs, and what these need from elsewhere."""
    members = {
        project(path.parent)["project"]["name"]: path.parent
        for pattern in ("proto", "libs/*", "services/*")
        for path in ROOT.glob(f"{pattern}/pyproject.toml")
    }
    own, others, waiting = set(), set(), ["tetra-cli"]
    while waiting:
        name = waiting.pop()
        if name in own:
            continue
        own.add(name)
        for text in project(members[name])["project"]["dependencies"]:
            required = Requirement(text)
            if required.name in members:
                waiting.append(required.name)
            else:
                others.add(str(required))
    return {name: members[name] for name in own}, others


def test_wheel_has_what_the_client_needs():
    own, others = needed()
    client = project(CLIENT)
    assert {str(Requirement(one)) for one in client["project"]["dependencies"]} == others
    included = client["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    packages = {
        (folder / package).resolve()
        for folder in own.values()
        for package in project(folder)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    }
    assert {(CLIENT / source).resolve() for source in included} == packages
    assert {source.rpartition("/")[2] for source in included} == set(included.values())
    cli = project(ROOT / "services" / "cli")["project"]
    assert client["project"]["scripts"] == cli["scripts"]
    assert client["project"]["version"] == cli["version"]
