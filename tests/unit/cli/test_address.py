"""Addresses, and the search for a server inside a container."""

import socket

import pytest

from cli import address
from cli.address import default_address, default_route, parse_addresses
from cli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("localhost:54321", ["localhost:54321"]),
        ("gw", ["gw:54321"]),
        ("a:1,b:2", ["a:1", "b:2"]),
        ("[::1]:9", ["[::1]:9"]),
        ("unix:///run/tetra.sock", ["unix:///run/tetra.sock"]),
        ("dns:///gateways:54321", ["dns:///gateways:54321"]),
    ],
)
def test_addresses(text, targets):
    assert [str(found) for found in parse_addresses(text)] == targets


@pytest.mark.parametrize("text", ["", "a b", "a:b", "a:0", "a:70000", "http://x:1", "::1", "a:1,"])
def test_wrong_address_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="for example: --server-address"):
        parse_addresses(text)


def test_default_route(tmp_path):
    table = tmp_path / "route"
    table.write_text(
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "eth0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0\n"
        "eth0 00000000 010011AC 0003 0 0 0 00000000 0 0 0\n"
    )
    assert default_route(str(table)) == "172.17.0.1"
    assert default_route(str(tmp_path / "none")) == ""


def test_search_uses_the_first_socket_that_answers(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(address, "DEFAULT_PORT", server.getsockname()[1])
        monkeypatch.setenv("TETRA_DISCOVER", "1")
        assert default_address() == f"localhost:{address.DEFAULT_PORT}"
        monkeypatch.delenv("TETRA_DISCOVER")
        assert default_address() == "localhost:54321"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"server_address":"unix:///var/run/tetragon/t.sock","pid":7}', "unix:///var/run/tet"),
        ('{"server_address":""}', "localhost:54321"),
        ('{"server_address":7}', "localhost:54321"),
        ("[]", "localhost:54321"),
        ("half of it {", "localhost:54321"),
        (None, "localhost:54321"),
    ],
)
def test_address_comes_from_the_info_file_of_an_agent(monkeypatch, tmp_path, text, expected):
    monkeypatch.delenv("TETRA_DISCOVER", raising=False)
    monkeypatch.setattr(address, "AGENT_INFO_FILE", str(tmp_path / "info.json"))
    if text is not None:
        (tmp_path / "info.json").write_text(text)
    assert default_address().startswith(expected)
