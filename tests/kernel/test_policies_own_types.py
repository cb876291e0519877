"""What our own API version adds, on the running kernel: sockets of descriptors, paths below."""

import os
import socket
from contextlib import suppress

import pytest

from support.policies import in_child, plan_of

pytestmark = pytest.mark.kernel

HEAD = "apiVersion: tetra.io/v1\nkind: TracingPolicy\nmetadata: {name: own}\n"
CONNECTED = """
spec:
  kprobes:
  - call: sys_connect
    args: [{index: 0, type: fd_sock}, {index: 1, type: sockaddr}]
    selectors: [{matchArgs: [{args: [0], operator: Protocol, values: [IPPROTO_UDP]}]}]
"""
ACCEPTED = """
spec:
  kprobes:
  - call: sys_accept4
    return: true
    returnArg: {index: 0, type: fd_sock}
    returnArgAction: TrackSock
    selectors: [{matchReturnArgs: [{index: 0, operator: Family, values: [AF_INET]}]}]
  tracepoints:
  - subsystem: sock
    event: inet_sock_set_state
    raw: true
    args:
    - {index: 0, type: sock}
    - {index: 0, type: sock_age}
    - {index: 2, type: int}
    - {index: 0, type: uint64, btfType: tcp_sock, resolve: bytes_received}
    selectors:
    - matchArgs:
      - {args: [2], operator: Equal, values: ["7"]}
      - {args: [1], operator: GT, values: ["0"]}
      matchActions: [{action: UntrackSock, argSock: 0}, {action: Post}]
"""
ASKED = """
spec:
  tracepoints:
  - subsystem: net
    event: net_dev_queue
    raw: true
    args: [{index: 0, type: skb}, {index: 0, type: skb_payload}]
    selectors:
    - matchArgs:
      - {args: [0], operator: Protocol, values: [IPPROTO_UDP]}
      - {args: [0], operator: DPort, values: ["%d"]}
"""
BELOW = """
spec:
  kprobes:
  - call: sys_unlink
    args: [{index: 0, type: string}]
    selectors: [{matchArgs: [{index: 0, operator: Below, values: [/none/one, /none/two/]}]}]
"""
NOT_BELOW = BELOW.replace("Below", "NotBelow")


def test_socket_of_a_descriptor_is_reported(policies):
    def connect():
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as one:
                one.connect_ex(("127.0.0.1", 9))

    with policies.loaded(plan_of(HEAD + CONNECTED)) as loaded:
        pid = in_child(connect)
        (record,) = loaded.until(1, pid)
    sock, address = record.args
    assert (sock.family, sock.protocol) == (socket.AF_INET, socket.IPPROTO_UDP)
    assert (address.addr, address.port) == (b"\x7f\0\0\1", 9)


def test_accepted_socket_is_its_owners_until_it_closes(policies):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve():
            with server.accept()[0] as peer:
                while peer.recv(64):
                    pass

        with policies.loaded(plan_of(HEAD + ACCEPTED)) as loaded:
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(b"x" * 23)
            client.close()
            pid = in_child(serve)
            accepted, closed = loaded.until(2, pid)
    assert accepted.returned[0].sport == port
    sock, age, state, received = closed.args
    # The sequence number that the peer's FIN has counts too (tcp_rcv_nxt_update() of tcp_input.c).
    assert (sock.sport, state, received) == (port, 7, 24)
    assert 0 < age < 60 * 10**9
    assert sock.dport == accepted.returned[0].dport


def test_payload_of_a_packet_is_reported(policies):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        address = receiver.getsockname()

        def send():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                for text in (b"a question", b"", b"y" * 600):
                    one.sendto(text, address)

        with policies.loaded(plan_of(HEAD + ASKED % address[1])) as loaded:
            pid = in_child(send)
            records = loaded.until(3, pid)
    first, empty, long = (record.args[1] for record in records)
    assert (first, empty) == (b"a question", b"")
    assert (long.data, long.original_size) == (b"y" * 512, 600)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (BELOW, {"/none/one", "/none/one/x", "/none/two", "/none/two/y"}),
        (NOT_BELOW, {"/none/one2", "/none/tw", "/none"}),
    ],
)
def test_paths_below(policies, document, expected):
    paths = (
        "/none/one",
        "/none/one/x",
        "/none/one2",
        "/none/two",
        "/none/two/y",
        "/none/tw",
        "/none",
    )

    def remove():
        for path in paths:
            with suppress(OSError):
                os.unlink(path)

    with policies.loaded(plan_of(HEAD + document)) as loaded:
        pid = in_child(remove)
        loaded.until(len(expected), pid)
        found = [record.args[0].decode() for record in loaded.of(pid)]
    assert set(found) == expected
    assert len(found) == len(expected)
