"""The servers of tests leave no connection open, in any state of their connections."""

import gc
import os
import random
import socket
import ssl
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from support.receivers import make_certificate
from support.tcp_server import THREAD, Connection, tcp_server
from support.waiting import wait_until


def echo(connection):
    while data := connection.recv(4096):
        connection.sendall(data)


def sockets():
    """Return the sockets that this process has."""
    found = set()
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own
            found.add(os.readlink(one))
    return {one for one in found if one.startswith("socket:")}


def own_threads():
    """Return how many threads of servers there are."""
    return sum(one.name == THREAD for one in threading.enumerate())


def talk(port, tls, is_over):
    """Connect, send and receive until the server is gone."""
    while not is_over.is_set():
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as plain:
            one = Connection(plain, tls, "127.0.0.1")
            one.sendall(b"x")
            assert one.recv(1) in (b"x", b"")


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_server_that_ends_at_any_moment_leaves_no_connection(tmp_path, encrypted):
    server = client = None
    if encrypted:
        certificate, key = make_certificate(tmp_path)
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(certificate, key)
        client = ssl.create_default_context(cafile=certificate)
    gc.collect()
    before = sockets()
    moments = random.Random(7)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(100):
            is_over = threading.Event()
            try:
                with tcp_server(echo, server) as port:
                    talking = threading.Thread(target=talk, args=(port, client, is_over))
                    talking.start()
                    time.sleep(moments.uniform(0, 0.01))
                assert own_threads() == 0
            finally:
                is_over.set()
                talking.join()
        gc.collect()
    assert [str(one.message) for one in seen] == []
    assert sockets() <= before


def test_connection_in_the_middle_of_its_handshake_is_ended(tmp_path):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*make_certificate(tmp_path))
    with tcp_server(echo, context) as port:
        client = socket.create_connection(("127.0.0.1", port))
        wait_until(lambda: own_threads() == 2, 30, threading.enumerate)
    with client:
        assert client.recv(1) == b""  # the server ended it before a hello
