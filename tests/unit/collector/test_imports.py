"""What a start does not import: time and memory of every host."""

import subprocess
import sys

import pytest

LATE = (
    "rich",
    "collector.policies.backend",
    "collector.policies.translate",
    "collector.policies.elf",
)


def imported_by(module: str) -> set[str]:
    text = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    command = [sys.executable, "-c", text]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_a_start_without_policies_imports_no_planner():
    assert not imported_by("collector.main").intersection(LATE)


def test_loading_a_kept_policy_imports_no_planner():
    late = {"collector.policies.plan_policy", "collector.policies.translate"}
    assert not imported_by("collector.policies.kernel_backend").intersection(late)


@pytest.mark.parametrize("module", ["gateway.main", "exporter.main"])
def test_a_service_does_not_import_what_structlog_takes_for_tracebacks(module):
    assert not {name for name in imported_by(module) if name.partition(".")[0] == "rich"}


def test_rich_can_be_imported_behind_structlog():
    text = "import chassis.imports as i; i.load_structlog(); import structlog, rich.console"
    subprocess.run([sys.executable, "-c", text], check=True)
