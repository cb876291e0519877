"""A client made from nothing but Tetragon's public protos changes policies of the fleet."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.fleet import document, fleet, known

PROTO = Path(__file__).parents[3] / "proto"
CLIENT = """
import json, sys
import grpc
from tetragon import sensors_pb2 as pb, sensors_pb2_grpc

assert pb.__file__.startswith(sys.argv[2]), pb.__file__
stub = sensors_pb2_grpc.FineGuidanceSensorsStub(grpc.insecure_channel(sys.argv[1]))

def listed():
    found = stub.ListTracingPolicies(pb.ListTracingPoliciesRequest()).policies
    print(json.dumps([
        [p.name, p.domain, pb.TracingPolicyState.Name(p.state), pb.TracingPolicyMode.Name(p.mode),
         p.enabled]
        for p in found
    ]))

listed()
stub.AddTracingPolicy(pb.AddTracingPolicyRequest(yaml=sys.stdin.read()))
listed()
stub.DisableTracingPolicy(pb.DisableTracingPolicyRequest(name="one"))
listed()
stub.EnableTracingPolicy(pb.EnableTracingPolicyRequest(name="one"))
listed()
stub.ConfigureTracingPolicy(
    pb.ConfigureTracingPolicyRequest(name="one", mode=pb.TP_MODE_MONITOR))
listed()
stub.DeleteTracingPolicy(pb.DeleteTracingPolicyRequest(name="one"))
listed()
"""


@pytest.fixture
def generated(tmp_path):
    """The code of the public protos alone."""
    folder = tmp_path / "generated"
    folder.mkdir()
    files = sorted(f"tetragon/{file.name}" for file in (PROTO / "tetragon").glob("*.proto"))
    command = [
        sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--python_out={folder}",
        f"--grpc_python_out={folder}", *files,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    (folder / "tetragon" / "__init__.py").touch()
    return folder


async def test_add_list_disable_enable_set_mode_delete(nats_server, gateway, generated, tmp_path):
    async with fleet(nats_server.url, tmp_path / "nodes") as nodes:
        for name in ("n1", "n2", "n3"):
            nodes.start(name)
        await known(gateway.gateway.fleet, nodes)
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, gateway.address, str(generated),
            env=os.environ | {"PYTHONPATH": str(generated)}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        output, errors = await client.communicate(document(action="Sigkill").encode())
        assert client.returncode == 0, errors.decode()
        shown = [[tuple(policy[2:]) for policy in json.loads(line)] for line in output.splitlines()]
        assert [set(policies) for policies in shown] == [
            set(),
            {("TP_STATE_ENABLED", "TP_MODE_ENFORCE", True)},
            {("TP_STATE_DISABLED", "TP_MODE_UNKNOWN", False)},
            {("TP_STATE_ENABLED", "TP_MODE_ENFORCE", True)},
            {("TP_STATE_ENABLED", "TP_MODE_MONITOR", True)},
            set(),
        ]
        assert not any(node.installed for node in nodes.nodes.values())
