"""``TETRA_POLICIES`` of a collector."""

import os
import subprocess

import pytest

from e2e.test_embedded import BIN

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]


def test_unknown_policy_is_refused_by_the_collector(tmp_path):
    done = subprocess.run(
        [BIN / "tetra-collector"],
        env=os.environ | {"TETRA_POLICIES": "filez", "TETRA_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert 'there is no ready-made policy "filez" (allowed: files, network, ' in done.stderr
