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
    assert capsys.readouterr().out == ("## flaky: a, b, c\n" if rounds else "")


def test_row_names_flaky_tests(tmp_path):
    step = {"ok": True, "says": "1 failed, 9 passed; flaky: tests/a.py::b"}
    result = {"release": "6.1", "machine": "x86_64", "steps": {"kernel tests": step}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    row = Row("6.1", "bookworm")
    _judge(row, tmp_path, tmp_path)
    assert row.cells()[-3] == "1 failed, 9 passed"
    assert row.cells()[-1] == "passed, flaky: tests/a.py::b"
