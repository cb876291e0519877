"""``tetra tracingpolicy`` on ``make run``, with a real collector: from check to delete."""

import os
import signal
import subprocess
from contextlib import suppress

import pytest

from e2e.test_embedded import BIN, NODE, Launch
from support.pseudo_terminal import Terminal
from support.waiting import wait_until

pytestmark = pytest.mark.kernel

DOCUMENT = """\
kind: TracingPolicy
metadata: {{name: opened}}
spec:
  kprobes:
  - call: sys_openat
    args: [{{index: 1, type: string}}]
    selectors: [{{matchArgs: [{{index: 1, operator: Equal, values: ["{path}"]}}]}}]
"""


@pytest.fixture
def launch(tmp_path, monkeypatch):
    monkeypatch.setenv("TETRA_TRACING_POLICY_DIR", str(tmp_path / "policies"))
    (tmp_path / "policies").mkdir()
    started = Launch(tmp_path / "state")
    yield started
    for pid in started.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    started.close()


@pytest.fixture
def environment(launch):
    return os.environ | {"TETRA_SERVER_ADDRESS": f"localhost:{launch.ports[1]}", "TERM": "xterm"}


@pytest.fixture
def tetra(environment):
    def run(*arguments, code=0):
        done = subprocess.run(
            [BIN / "tetra", *arguments], capture_output=True, text=True, timeout=120,
            env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def open_file(path, times=1):
    for _ in range(times):
        subprocess.run(["/usr/bin/cat", path], check=True, stdout=subprocess.DEVNULL)


def test_from_the_first_check_to_the_deletion(launch, tetra, environment, tmp_path):
    path, file = tmp_path / "secret", str(tmp_path / "p.yaml")
    path.write_text("1")
    (tmp_path / "p.yaml").write_text(DOCUMENT.format(path=path))
    bad = tmp_path / "bad.yaml"
    bad.write_text(DOCUMENT.format(path=path).replace("sys_openat", "sys_openit"))
    launch.wait_for("^  stop  +Ctrl-C$")

    assert f"{bad}:5:11: spec.kprobes[0].call: there is no system call" in tetra(
        "tp", "check", str(bad), "--node", NODE, code=1
    )
    explained = tetra("tp", "explain", file)
    assert f"opened on {NODE}, Linux {os.uname().release}" in explained
    assert "kprobe:sys_openat" in explained
    assert "int hook0(" in tetra("tp", "explain", file, "--source")

    assert f"{bad}:5:11: " in tetra("tp", "add", str(bad), code=1)
    assert "no such policy" in tetra("tp", "status", "opened", code=1)

    trial = Terminal([str(BIN / "tetra"), "tp", "try", file], environment, columns=200)
    try:
        trial.wait_for("monitor mode on 1 of 1 node")
        open_file(path, 3)
        trial.wait_for("    3  /usr/bin/cat", 60)
        trial.wait_for(f"    3  openat({path})")
        trial.press("\x03")
        assert trial.process.wait(30) == 0
    finally:
        trial.close()
    wait_until(lambda: "no policies" in tetra("tp", "status"), 60, launch.text)

    # The refused one was revision 1.
    assert "revision 2 on 1 node" in tetra("tp", "add", file, "--comment", "first")
    open_file(path, 2)
    shown = wait_until(
        lambda: found if " 2 " in (found := tetra("tp", "status", "opened")) else None,
        60, launch.text,
    )  # fmt: skip
    assert f"\n{NODE}" in shown.replace("\r", "")
    row = tetra("tp", "list").splitlines()[1].split()
    assert row[1:6] == ["opened", "grpc", "enabled", "0", "(global)"]
    assert "generic_kprobe" in row
    assert row[-3] == "2"
    assert tetra("nodes").splitlines()[1].split()[7] == "1"

    (tmp_path / "p.yaml").write_text(DOCUMENT.format(path=tmp_path / "other"))
    difference = tetra("tp", "diff", file, code=3)
    assert f'operator: Equal, values: ["{path}"]' in difference
    assert "--- opened revision 2\n" in difference
    tetra("tp", "add", file, "--replace")
    assert "rolled back to revision 2" in tetra("tp", "rollback", "opened")
    assert f'"{path}"' in tetra("tp", "show", "opened")
    open_file(path)
    wait_until(
        lambda: len(
            tetra("getevents", "--policy-names", "opened", "--since", "1h", "--no-follow", "-o",
                  "json").splitlines()
        ) == 3,
        60, launch.text,
    )  # fmt: skip

    assert 'tracing policy "opened" disabled' in tetra("tp", "disable", "opened")
    assert 'tracing policy "opened" enabled' in tetra("tp", "enable", "opened")
    assert 'tracing policy "opened" deleted' in tetra("tp", "delete", "opened")
    assert "does not exist" in tetra("tp", "delete", "opened", code=1)
    audit = tetra("getevents", "--audit", "--no-follow")
    for line in ("add: grpc:opened revision 2", '"first"', "rollback to 2: ", "delete: "):
        assert line in audit
