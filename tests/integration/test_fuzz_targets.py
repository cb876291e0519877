"""What fuzzing imports."""

import subprocess
import sys
from pathlib import Path

from fuzz import inputs


def test_targets_leave_no_descriptor_open():
    """A target that does prints a ResourceWarning at the end of a test run."""
    imports = "; ".join(f"import fuzz.targets.{name}" for name in inputs.TARGETS)
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", imports],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
