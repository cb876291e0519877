"""Three Compose projects as three hosts: the bus, a further collector, a gateway for clients."""

import json
import os
import secrets
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from e2e.stack import CALL_S, EVENT_S, ROOT, TRUE, Client, Stack, docker, inspect
from support.waiting import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

BUS_PORT, GATEWAY_PORT = 24222, 25432
# No name server here has the names of these hosts: in each container they mean this host.
NAMES = """
services:
  {service}:
    extra_hosts: ["bus.example:host-gateway", "gw.example:host-gateway"]
"""


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Certificates as docs/deploy.md makes them, outside the checkout."""
    folder = tmp_path_factory.mktemp("tls")
    shutil.copy(ROOT / "deploy/tls/make", folder)
    for name in ("bus.example", "gw.example"):
        subprocess.run([folder / "make", name], check=True, capture_output=True)
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def fleet(tls, tmp_path_factory):
    """Start the three; yield their stacks by name."""
    override = tmp_path_factory.mktemp("names")
    common = {
        "TETRA_NATS_GATEWAY_PASSWORD": secrets.token_hex(8),
        "TETRA_NATS_URL": f"tls://bus.example:{BUS_PORT}",
        "TETRA_NATS_TLS_CA_FILE": "/etc/tetra-tls/ca.pem",
    }

    def names(service):
        file = override / f"{service}.yaml"
        file.write_text(NAMES.format(service=service))
        return str(file)

    only_ca = tmp_path_factory.mktemp("ca")
    only_ca.chmod(0o755)
    shutil.copy(tls / "ca.pem", only_ca)
    stacks = {
        "bus": Stack(
            "compose.yaml", "compose.tls.yaml",
            **common | {
                "TETRA_NATS_URL": "", "TETRA_NATS_NAME": "bus.example", "NODE_NAME": "bus-host",
                "TETRA_NATS_PUBLISH": str(BUS_PORT), "TETRA_TLS_DIR": str(tls / "bus.example"),
            },
        ),
        "collector": Stack(
            "compose.collector.yaml", names("collector"), project="tetra-test-collector",
            **common, TETRA_TLS_DIR=str(only_ca), NODE_NAME="replaced below",
            TETRA_NATS_USER="replaced below", TETRA_NATS_PASSWORD="replaced below",
        ),
        "gateway": Stack(
            "compose.gateway.yaml", names("gateway"), project="tetra-test-gateway",
            **common, TETRA_TLS_DIR=str(tls / "gw.example"), TETRA_PUBLISH=str(GATEWAY_PORT),
            TETRA_INSECURE_LISTEN="false", TETRA_TLS_CERT_FILE="/etc/tetra-tls/server.pem",
            TETRA_TLS_KEY_FILE="/etc/tetra-tls/server.key",
        ),
    }  # fmt: skip
    try:
        for stack in stacks.values():
            stack.down()
        stacks["bus"].up()
        let_in = ("exec", "-T", "nats", "/etc/nats/collector", "other-host")
        lines = stacks["bus"].compose(*let_in).splitlines()
        stacks["collector"].set(**dict(line.split("=", 1) for line in lines))
        for further in ("collector", "gateway"):
            stacks[further].up()
        yield stacks
    finally:
        for stack in reversed(stacks.values()):
            stack.down()


def client_command(tls, *arguments):
    """Return the command of a client that knows the authority and one gateway's address."""
    return [
        "docker", "run", "--rm", "--add-host", "gw.example:host-gateway",
        "--volume", f"{tls}/ca.pem:/ca.pem:ro", "tetra-cli", *arguments,
        "--server-address", f"gw.example:{GATEWAY_PORT}", "--tls-ca-cert-files", "/ca.pem",
    ]  # fmt: skip


def test_a_client_sees_all_hosts_through_tls(fleet, tls):
    (gateway,) = fleet["gateway"].containers("gateway")
    wait_until(
        lambda: inspect(gateway)["State"]["Health"]["Status"] == "healthy",
        EVENT_S,
        fleet["gateway"].logs,
    )
    marker = uuid.uuid4().hex
    client = Client(client_command(tls, "getevents", "-o", "json"))
    try:
        # One kernel here, two collectors: each reports it under its own host's name.
        def hosts_shown():
            subprocess.run([TRUE, marker], check=True)
            return {json.loads(line)["node_name"] for line in list(client.lines) if marker in line}

        wait_until(
            lambda: hosts_shown() == {"bus-host", "other-host"},
            EVENT_S,
            lambda: client.errors.copy(),
        )
    finally:
        client.stop()
    listed = subprocess.run(
        client_command(tls, "nodes"), capture_output=True, text=True, timeout=CALL_S
    )
    assert listed.returncode == 0, listed.stderr
    assert {line.split()[0] for line in listed.stdout.splitlines()[1:]} == {
        "bus-host",
        "other-host",
    }


def test_client_without_the_authority_gets_one_line(fleet, tls):
    command = client_command(tls, "status")
    done = subprocess.run(
        [word for word in command if word not in ("--tls-ca-cert-files", "/ca.pem")],
        capture_output=True, text=True, timeout=CALL_S,
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_bus_refuses_clients_without_a_password(fleet, tls):
    environment = {
        "TETRA_NATS_URL": f"tls://bus.example:{BUS_PORT}",
        "TETRA_NATS_TLS_CA_FILE": "/ca.pem",
        "TETRA_INSECURE_LISTEN": "true",
    }
    options = [word for k, v in environment.items() for word in ("--env", f"{k}={v}")]
    name = f"tetra-test-{uuid.uuid4().hex[:6]}"
    try:
        docker(
            "run", "--detach", "--name", name, "--add-host", "bus.example:host-gateway",
            "--volume", f"{tls}/ca.pem:/ca.pem:ro", *options, "tetra-gateway",
        )  # fmt: skip
        wait_until(
            lambda: "authorization" in "".join(logs(name)).lower(),
            EVENT_S,
            lambda: "".join(logs(name)),
        )
    finally:
        docker("rm", "--force", name)


def logs(container):
    done = subprocess.run(
        ["docker", "logs", container], capture_output=True, text=True, timeout=CALL_S
    )
    return done.stdout, done.stderr


def test_secrets_of_a_host_stay_out_of_the_repository(tls):
    ignored = ["deploy/tls/ca.key", "deploy/tls/gw.example/server.key", ".env"]
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    done = subprocess.run(
        ["git", "check-ignore", *ignored], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.split() == ignored
    assert os.stat(tls / "ca.key").st_mode & 0o077 == 0
    assert Path(tls / "make").exists()
