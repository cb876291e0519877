"""A guest runs its tests, and those that failed once more alone."""

from vm.guest import prove

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
    assert says.endswith("; flaky: test_one.py::test_first_run_fails")
    printed = capsys.readouterr().out
    assert printed.count("test_one.py::test_steady PASSED") == 1  # in the first run alone
    assert printed.count("collected ") == 3
