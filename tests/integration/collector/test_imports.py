"""What a start does not import: time and memory of every host."""

import subprocess
import sys

import pytest

LATE = (
    "rich",
    "yaml",
    "prometheus_client",
    "re2",
    "tracingpolicy.model",
    "tracingpolicy.reading.policy",
    "readymade.documents",
    "collector.kubernetes.client",
    "collector.policies.backend",
    "collector.policies.plan",
    "collector.policies.report",
    "collector.policies.translate",
    "collector.policies.elf",
)


def imported_by(service: str) -> set[str]:
    text = (
        "import sys\n"
        f"from {service}.entry import main\n"
        "sys.argv[1:] = ['--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    print(*sys.modules, sep='\\n')\n"
    )
    command = [sys.executable, "-c", text]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_a_start_without_policies_imports_no_planner():
    found = imported_by("collector")
    assert "collector.build" in found
    assert not found.intersection(LATE)


@pytest.mark.parametrize("service", ["gateway", "exporter"])
def test_a_service_does_not_import_rich(service):
    found = imported_by(service)
    assert "structlog" in found
    assert not {name for name in found if name.partition(".")[0] == "rich"}


def test_a_service_collects_garbage_behind_its_imports():
    text = (
        "import gc\n"
        "from chassis.imports import importing\n"
        "with importing():\n"
        "    assert not gc.isenabled()\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 0\n"
    )
    subprocess.run([sys.executable, "-c", text], check=True)


def test_rich_can_be_imported_behind_structlog():
    text = "import chassis.imports as i; i.load_structlog(); import structlog, rich.console"
    subprocess.run([sys.executable, "-c", text], check=True)
