"""Policies of ``make run``: a file in the folder, and the lines of calls that it matches."""

import json
import os
import signal
import subprocess

import grpc
import pytest

from e2e.test_embedded import BIN, NODE, launched
from support.net import free_port
from support.waiting import wait_until
from tetragon import sensors_pb2, sensors_pb2_grpc

pytestmark = pytest.mark.kernel

DOCUMENT = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata:
  name: files
spec:
  kprobes:
  - call: sys_openat
    args:
    - index: 1
      type: string
      label: path
    selectors:
    - matchArgs:
      - index: 1
        operator: Prefix
        values: ["{prefix}"]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "policies"
    folder.mkdir()
    monkeypatch.setenv("TETRA_TRACING_POLICY_DIR", str(folder))
    return folder


@pytest.fixture
def launch(folder, tmp_path):
    with launched(tmp_path / "state") as started:
        yield started


def until_shown(launch, path):
    """Open ``path`` until a line shows that a policy saw it."""

    def shown():
        subprocess.run(["/usr/bin/cat", path], check=True, stdout=subprocess.DEVNULL)
        return launch.lines_with(f"-> openat(path={path}) {{files}}")

    (_, line), *_ = wait_until(shown, 60, launch.text)
    return line


def listed(launch):
    with grpc.insecure_channel(f"localhost:{launch.ports[1]}") as channel:
        stub = sensors_pb2_grpc.FineGuidanceSensorsStub(channel)
        return list(stub.ListTracingPolicies(sensors_pb2.ListTracingPoliciesRequest()).policies)


def until_listed(launch, check):
    """Return the only policy once ``check`` holds for it."""

    def found():
        policies = listed(launch)
        return policies if len(policies) == 1 and check(policies[0]) else None

    (policy,) = wait_until(found, 60, launch.text)
    return policy


def test_a_policy_file_is_loaded_replaced_and_removed(launch, folder, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("1")
    second.write_text("2")
    launch.wait_for("^  stop  +Ctrl-C$")

    (folder / "files.yaml").write_text(DOCUMENT.format(prefix=first))
    line = until_shown(launch, first)
    assert line.startswith("❓ kprobe ")
    assert f": /usr/bin/cat {first} -> " in line
    policy = until_listed(launch, lambda one: one.stats.action_counters.post > 0)
    assert (policy.name, policy.domain, policy.enabled) == ("files", "static", True)
    assert policy.details.node_name == NODE
    assert policy.details.revision == 1

    (folder / "files.yaml").write_text(DOCUMENT.format(prefix=second))
    until_shown(launch, second)
    assert until_listed(launch, lambda one: not one.error).details.revision == 2

    (folder / "files.yaml").write_text(DOCUMENT.replace("Prefix", "Prefixed"))
    refused = until_listed(launch, lambda one: one.error)
    assert "files.yaml:15:19: " in refused.error
    assert refused.enabled
    until_shown(launch, second)  # the revision before stays loaded

    (folder / "files.yaml").unlink()
    wait_until(lambda: not listed(launch), 60, launch.text)
    unseen = subprocess.Popen(["/usr/bin/cat", second], stdout=subprocess.DEVNULL)
    assert unseen.wait() == 0
    wait_until(lambda: launch.lines_with(f"💥 exit {unseen.pid}: "), 60, launch.text)
    assert not launch.lines_with(f"❓ kprobe {unseen.pid}: ")
    address = f"localhost:{launch.ports[1]}"
    shown = subprocess.run(
        [BIN / "tetra", "getevents", "--server-address", address, "--since", "1h", "--no-follow",
         "--policy-names", "files", "-o", "json"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    events = [json.loads(line) for line in shown.stdout.splitlines()]
    assert {event["process_kprobe"]["policy_name"] for event in events} == {"files"}
    paths = {event["process_kprobe"]["args"][0]["string_arg"] for event in events}
    assert paths == {str(first), str(second)}


def test_policies_outlive_the_collector(launch, folder, tmp_path):
    file = tmp_path / "file"
    file.write_text("1")
    (folder / "files.yaml").write_text(DOCUMENT.format(prefix=file))
    launch.wait_for("^  stop  +Ctrl-C$")
    until_shown(launch, file)
    os.kill(launch.pid_of("tetra-collector"), signal.SIGKILL)
    launch.wait_for(r"^tetra-embedded: collector: killed by SIGKILL")
    before = len(launch.lines_with("-> openat("))

    def shown_again():
        subprocess.run(["/usr/bin/cat", file], check=True, stdout=subprocess.DEVNULL)
        return len(launch.lines_with("-> openat(")) > before

    wait_until(shown_again, 60, launch.text)


def test_an_invalid_policy_is_rejected_before_the_start(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(DOCUMENT.replace("sys_openat", "sys_openit"))
    command = [BIN / "tetra-embedded", "--state-dir", tmp_path / "state", "--tracing-policy", file]
    env = os.environ | {  # the default ports may belong to an instance that runs
        "TETRA_NATS_PORT": str(free_port()),
        "TETRA_LISTEN_ADDRESS": f"localhost:{free_port()}",
    }
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"{file}:7:11: " in done.stderr
    assert "sys_openit" in done.stderr
    assert done.stderr.endswith(f"error: policy: {file}: it cannot be loaded\n")
