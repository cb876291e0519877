"""The state folder is root's alone: the collector does not write where another user could."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.machine import pytest_runtest_setup  # noqa: F401  # the hook that skips or fails

pytestmark = pytest.mark.kernel

COLLECTOR = Path(sys.executable).parent / "tetra-collector"


def started(state, tmp_path):
    """Return the exit code and the output of a collector that is expected to end."""
    env = os.environ | {
        "NODE_NAME": f"state-{os.getpid()}",
        "TETRA_NATS_URL": "nats://127.0.0.1:1",
        "TETRA_STATE_DIR": str(state),
        "TETRA_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [COLLECTOR], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def another_users(folder):
    os.chown(folder, 12345, 12345)
    return "belongs to user 12345"


def writable(folder):
    folder.chmod(0o777)
    return "others may change it"


def with_a_link(folder):
    (folder / "health").symlink_to("/etc/passwd")
    return "is a link"


@pytest.mark.parametrize("make", [another_users, writable, with_a_link])
def test_state_folder_that_others_can_change_is_refused(make, tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    cause = make(state)
    code, output = started(state, tmp_path)
    assert code == 2
    assert cause in output
    assert "Traceback" not in output
    assert "ready" not in output
