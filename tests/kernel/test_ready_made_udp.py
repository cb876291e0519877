"""Policy network: the bytes of UDP sockets, reported when they are closed."""

import socket
import subprocess
from contextlib import ExitStack

import pytest

from support.ready_made import watching
from support.workloads import built

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

UDP_SEGMENT = 103  # include/uapi/linux/udp.h
HOSTS = {
    "IPv4": (socket.AF_INET, "127.0.0.1", socket.AF_INET, "127.0.0.1"),
    "IPv6": (socket.AF_INET6, "::1", socket.AF_INET6, "::1"),
    "IPv4 on an IPv6 socket": (socket.AF_INET6, "::ffff:127.0.0.1", socket.AF_INET, "127.0.0.1"),
}
SENDS = ("sendto", "sendmsg", "sendmmsg", "write", "writev", "ring")


@pytest.fixture(scope="module")
def network(policies):
    with watching(policies, "network", names="false") as watch:
        if not watch.functions:
            pytest.skip("named in the head: functions cannot be hooked here")
        yield watch


@pytest.fixture(scope="module")
def evasions(tmp_path_factory):
    return built("evasions", tmp_path_factory.mktemp("evasions"))


def closed(watch, port=None):
    """Return time, bytes sent and received of each UDP socket, or of those with a local port."""
    return [
        record.args[1:]
        for record in watch.loaded.pump()
        if watch.message_of(record) == "close"
        and record.args[0].protocol == socket.IPPROTO_UDP
        and port in (None, record.args[0].sport)
    ]


def quiet(watch):
    """Close a socket that was used, and wait for its record: what came before has arrived."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mark:
        mark.bind(("127.0.0.1", 0))
        port = mark.getsockname()[1]
        mark.sendto(b"quiet", ("127.0.0.1", port))
    watch.wait_for(lambda: closed(watch, port))


def counted(watch, port):
    """Return bytes sent and received of the one socket with the local port, which is closed."""
    quiet(watch)
    ((used_ns, sent, received),) = closed(watch, port)
    assert used_ns > 0
    return sent, received


@pytest.fixture
def pair(request):
    """A client and a server, by the name of an address."""
    family, host, other, bound = HOSTS[getattr(request, "param", "IPv4")]
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket(other, socket.SOCK_DGRAM))
        client = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        server.bind((bound, 0))
        client.bind(("::" if family == socket.AF_INET6 else host, 0))
        for one in (server, client):
            one.settimeout(20)
        yield client, server, (host, server.getsockname()[1])


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("pair", HOSTS, indirect=True)
def test_bytes_both_ways(network, pair, connected):
    client, server, address = pair
    ports = [one.getsockname()[1] for one in (client, server)]
    if connected:
        client.connect(address)
    for size in (1, 1000, 40_000):
        client.send(bytes(size)) if connected else client.sendto(bytes(size), address)
        assert len(server.recv(50_000, socket.MSG_PEEK)) == size  # is not received by this
        _, peer = server.recvfrom(50_000)
    server.sendto(bytes(300), peer)
    assert len(client.recv(10)) == 10  # the rest is dropped
    client.close()
    server.close()
    assert counted(network, ports[0]) == (41_001, 10)
    assert counted(network, ports[1]) == (300, 41_001)


@pytest.mark.parametrize("way", SENDS)
def test_every_way_to_send_is_counted(network, evasions, pair, way):
    _, server, address = pair
    network.loaded.records.clear()
    done = subprocess.run([evasions, "send", way, str(address[1])], check=False)
    if done.returncode == 77:
        pytest.skip(f"no such way here: {way}")
    assert len(server.recv(10)) == 1
    quiet(network)
    assert [one[1:] for one in closed(network)].count((1, 0)) == 1


def test_parts_of_a_datagram_and_segments(network, pair):
    client, server, address = pair
    port = client.getsockname()[1]
    client.connect(address)
    client.send(bytes(10), socket.MSG_MORE)
    client.send(bytes(5))
    assert len(server.recv(100)) == 15
    client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
    client.send(bytes(250))
    assert [len(server.recv(1000)) for _ in range(3)] == [100, 100, 50]
    client.close()
    assert counted(network, port) == (265, 0)


def test_refused_datagrams_are_not_counted(network, pair):
    client, server, address = pair
    port = client.getsockname()[1]
    client.connect(address)
    server.close()
    client.send(b"12345")
    with pytest.raises(ConnectionRefusedError):
        client.send(b"1234567")
    with pytest.raises(OSError, match="too long"):
        client.send(bytes(70_000))
    client.close()
    assert counted(network, port) == (5, 0)


def test_sockets_do_not_inherit_counts(network):
    """The kernel uses the memory of a closed socket again."""
    network.loaded.records.clear()
    for _ in range(300):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.bind(("127.0.0.1", 0))
            one.sendto(b"xyz", one.getsockname())
            one.recv(10)
    quiet(network)
    assert [one[1:] for one in closed(network)].count((3, 3)) == 300


def test_unused_sockets_are_not_reported(network):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    quiet(network)
    assert closed(network, port) == []
