"""Mistakes of a user: each service prints one line that says what to change, and no traceback."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(sys.executable).parent


async def run(service, *flags, **settings):
    """Run a service to its end; return its exit code and the last line that it printed."""
    process = await asyncio.create_subprocess_exec(
        PROGRAMS / f"tetra-{service}", *flags, env=os.environ | settings,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await asyncio.wait_for(process.communicate(), 120)
    assert b"Traceback" not in err, err.decode()
    return process.returncode, err.decode().splitlines()[-1]


async def test_health_check_with_wrong_settings_is_one_line():
    services = ("collector", "gateway", "exporter")
    found = await asyncio.gather(*(run(s, "--check", TETRA_LOG_LEVEL="loud") for s in services))
    for service, (code, line) in zip(services, found, strict=True):
        assert code == 2
        assert line.startswith(f"tetra-{service}: error: settings: TETRA_LOG_LEVEL (--log-level): ")


@pytest.fixture
def sinks(tmp_path):
    file = tmp_path / "sinks.yaml"
    file.write_text(f"sinks:\n- name: a\n  type: file\n  path: {tmp_path / 'a.log'}\n")
    return {"TETRA_SINKS_FILE": str(file), "TETRA_STATE_DIR": str(tmp_path / "state")}


async def test_mistakes_at_the_start_are_one_line(sinks, nats_server):
    common = sinks | {"TETRA_NATS_URL": nats_server.url, "TETRA_LISTEN_ADDRESS": "127.0.0.1:0"}
    with socket.create_server(("127.0.0.1", 0)) as other:
        used = f"127.0.0.1:{other.getsockname()[1]}"
        mistakes = [
            ("gateway", {"TETRA_METRICS_ADDRESS": used}, f"listen: {used}: in use by process "),
            ("exporter", {"TETRA_METRICS_ADDRESS": used},
             f"listen: {used}: address already in use: set TETRA_METRICS_ADDRESS to another"),
            ("exporter", {"TETRA_EVENT_LOG_ADDRESS": used}, f"listen: {used}: in use by process "),
            ("exporter", {"TETRA_EVENT_LOG_ADDRESS": "0.0.0.0:5"},
             "settings: event_log_address: 0.0.0.0:5: expected unix:PATH or a loopback address"),
            ("exporter", {"TETRA_METRICS_ADDRESS": "localhost"},
             "listen: localhost: expected HOST:PORT: set TETRA_METRICS_ADDRESS"),
            ("gateway", {"TETRA_NATS_PASSWORD_FILE": "/nowhere"},
             "settings: TETRA_NATS_PASSWORD_FILE: /nowhere: No such file or directory"),
            ("exporter", {"TETRA_STATE_DIR": "/etc/hostname"},
             "state: /etc/hostname: a file is there, not a folder"),
        ]  # fmt: skip
        # Two exporters that run at a time need a state folder each.
        own = [
            {"TETRA_STATE_DIR": f"{common['TETRA_STATE_DIR']}-{n}"} for n in range(len(mistakes))
        ]
        found = await asyncio.gather(
            *(
                run(s, **common | state | more)
                for state, (s, more, _) in zip(own, mistakes, strict=True)
            )
        )
    for (service, _, text), (code, line) in zip(mistakes, found, strict=True):
        assert (code, line.startswith(f"tetra-{service}: error: {text}")) == (2, True), line
