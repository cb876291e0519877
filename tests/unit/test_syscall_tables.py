"""The CLI and the collector read the same table of system calls."""

from pathlib import Path

SERVICES = Path(__file__).parents[2] / "services"


def test_both_copies_are_the_same():
    first = SERVICES / "cli/src/cli/renderers/syscalls.json"
    second = SERVICES / "collector/src/collector/policies/syscalls.json"
    assert first.read_bytes() == second.read_bytes(), "run scripts/syscalls"
