"""The tables of docs/policies.md match the code, and its policy is accepted."""

import re
import runpy
import sys
from pathlib import Path

from collector.policies.plan_policy import check_document
from support.policy_coverage import SUPPORTED, rows
from support.policy_kernel import host
from support.policy_usage import USAGE
from tracingpolicy import parse

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "policies.md"
ENFORCEMENT = ROOT / "docs" / "enforcement.md"


def test_tables_are_current(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["policy-tables", "--check"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    script = runpy.run_path(str(ROOT / "scripts" / "policy-tables"))
    assert (script["main"](), capsys.readouterr()) == (0, ("", ""))


def test_first_policy_of_the_page_is_accepted():
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    assert len(check_document(found[1], "p", host()).hooks) == 1


def test_examples_of_enforcement_are_policies():
    texts = re.findall(r"```yaml\n(.*?)```", ENFORCEMENT.read_text(), re.DOTALL)
    assert [parse(text).name for text in texts] == [
        "shadow-is-for-login", "no-modules", "no-metadata-service",
    ]  # fmt: skip


def test_every_count_of_use_has_its_row():
    assert USAGE.keys() <= {(row.group, row.name) for row in rows()}


def test_what_is_not_supported_is_refused_by_name():
    refused = [row for row in rows() if row.result != SUPPORTED]
    assert all("not supported yet" in row.result for row in refused), refused
