"""A port in use is reported with its holder."""

import os
import re
import socket
import subprocess
import sys

import pytest

from embedded import ports
from embedded.errors import EmbeddedError


def test_free_port_is_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ports.require_free("127.0.0.1", port, "TETRA_NATS_PORT")


@pytest.mark.parametrize("bound_to", ["127.0.0.1", "0.0.0.0"])
def test_port_in_use_names_port_holder_and_setting(bound_to):
    with socket.create_server((bound_to, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(EmbeddedError) as caught:
            ports.require_free("localhost", port, "TETRA_NATS_PORT")
    assert re.search(rf"port {port} is in use by \S+ \(pid {os.getpid()}\)", str(caught.value))
    assert "TETRA_NATS_PORT" in str(caught.value)
    assert caught.value.exit_code == 2


BUSY = """
import os, socket
files = [os.open(os.devnull, os.O_RDONLY) for _ in range(500)]
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:  # descriptors that are listed before the server's
        for file in files:
            os.close(file)
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(500)]
"""


def test_holder_is_found_although_it_closes_other_files():
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        try:
            port = int(process.stdout.readline())
            found = {ports.holder(port) for _ in range(30)}
        finally:
            process.kill()
    assert [name.partition(" ")[2] for name in found] == [f"(pid {process.pid})"]


def test_unknown_host_is_one_line():
    with pytest.raises(EmbeddedError, match=r"^listen: no\.such\.host\.invalid:1: "):
        ports.require_free("no.such.host.invalid", 1, "TETRA_LISTEN_ADDRESS")
