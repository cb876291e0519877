"""Which failed tests of a guest may prove themselves alone; the rows that name them."""

import json

import pytest

from vm.__main__ import Row, _judge
from vm.guest import prove

A_FEW = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("failed", "rounds", "passes"),
    [
        (A_FEW, [True, True], True),
        (A_FEW, [True, False, True], True),
        (A_FEW, [False, True, True], True),
        (A_FEW, [True, False, False], False),
        (A_FEW, [False, True, False], False),
        (A_FEW, [False, False], False),
        ([*A_FEW, "d"], [], False),
        ([], [], False),  # pytest failed without a test
    ],
)
def test_few_failed_tests_have_to_pass_alone_twice(failed, rounds, passes, capsys):
    left = list(rounds)
    assert prove.passes_alone(failed, lambda: left.pop(0)) is passes
    assert left == []
    assert capsys.readouterr().out == ("## unsteady: a, b, c\n" if rounds else "")


PASSES_SECOND = """
from pathlib import Path
def test_steady(): pass
def test_first_run_fails():
    ran = Path(__file__).with_name("ran")
    before = ran.exists()
    ran.touch()
    assert before
"""


def test_failed_test_alone_is_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prove, "SOURCE", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_one.py").write_text(PASSES_SECOND)
    says = prove.run_tests(tmp_path, [], ["test_one.py"])
    assert says.startswith("1 failed, 1 passed")
    assert says.endswith("; unsteady: test_one.py::test_first_run_fails")
    printed = capsys.readouterr().out
    assert printed.count("test_one.py::test_steady PASSED") == 1  # in the first run alone
    assert printed.count("collected ") == 3


def test_row_names_unsteady_tests(tmp_path):
    step = {"ok": True, "says": "1 failed, 9 passed; unsteady: tests/a.py::b"}
    result = {"release": "6.1", "machine": "x86_64", "steps": {"kernel tests": step}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    row = Row("6.1", "bookworm")
    _judge(row, tmp_path, tmp_path)
    assert row.cells()[-3] == "1 failed, 9 passed"
    assert row.cells()[-1] == "passed, unsteady: tests/a.py::b"
