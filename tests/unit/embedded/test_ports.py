"""A port in use is reported with its holder."""

import os
import re
import socket

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


def test_unknown_host_is_one_line():
    with pytest.raises(EmbeddedError, match=r"^listen: no\.such\.host\.invalid:1: "):
        ports.require_free("no.such.host.invalid", 1, "TETRA_LISTEN_ADDRESS")
