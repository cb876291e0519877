"""Which kernels are tested, and which tests each of them leaves out."""

import re
from pathlib import Path

import pytest

from vm.kernels import MACHINES, select

TESTS = Path(__file__).parents[2] / "kernel"


def test_kernels_are_selected_by_name():
    assert [machine.name for machine in select("6.12-arm64, 5.10")] == ["5.10", "6.12-arm64"]
    assert select("") == list(MACHINES)
    with pytest.raises(ValueError, match=r"no kernel '9\.9': there are "):
        select("9.9")


def test_tests_that_are_left_out_exist():
    files = {path.stem: path.read_text() for path in TESTS.glob("test_*.py")}
    functions = {name for text in files.values() for name in re.findall(r"def (test_\w+)", text)}
    for machine in MACHINES:
        assert {name.rstrip("[") for name in machine.left_out} <= files.keys() | functions
