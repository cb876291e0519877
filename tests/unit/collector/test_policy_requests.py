"""GetUrl and DnsLookup: what is allowed, what is sent, and that nothing waits for it."""

import socket
import ssl
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from collector import requests
from collector.policies.check_requests import is_allowed, why_refused
from collector.policies.table import Request, RequestKind
from collector.requests import Requests, dns_query, look_up
from collector.resolver import resolver_address, system_resolver
from collector.settings import Settings
from collector.web import AddressRefusedError, Web
from support.receivers import make_certificate
from tracingpolicy.actions import ActionKind
from tracingpolicy.position import Place
from tracingpolicy.selectors import Action

LOCAL = frozenset({"127.0.0.1"})


def until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def server(respond, tls=None):
    """A web server that keeps the paths it was asked for; ``tls``: its certificate and key."""
    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            respond(self)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        one.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            one.socket = context.wrap_socket(one.socket, server_side=True)
        thread = threading.Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{one.server_address[1]}", paths
        finally:
            one.shutdown()
            thread.join()


def fine(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "2")
    handler.end_headers()
    handler.wfile.write(b"ok")


def test_get_url_is_sent_in_the_background():
    with server(fine) as (url, paths):
        one = Requests(LOCAL)
        one.open()
        one.submit(Request(RequestKind.URL, f"{url}/canary?token=7"))
        until(lambda: one.statistics.sent == 1)
    assert paths == ["/canary?token=7"]


def test_certificate_of_an_https_server_is_verified(tmp_path, monkeypatch):
    tls = make_certificate(tmp_path)
    with server(fine, tls) as (url, paths):
        with pytest.raises(ssl.SSLCertVerificationError):
            Web(LOCAL).get(f"{url}/other", 20)
        monkeypatch.setenv("SSL_CERT_FILE", str(tls[0]))
        assert Web(LOCAL).get(f"{url}/own", 20) == 200
    assert paths == ["/own"]


def test_redirect_is_not_followed():
    def elsewhere(handler):
        handler.send_response(302)
        handler.send_header("Location", "/secret")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with server(elsewhere) as (url, paths):
        assert Web(LOCAL).get(f"{url}/here", 5) == 302
    assert paths == ["/here"]


def test_endless_answer_is_abandoned():
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 4096)
        except OSError:
            pass

    with server(endless) as (url, _):
        assert Web(LOCAL).get(url, 5) == 200


def test_server_that_does_not_answer_ends_at_the_time_limit():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(OSError, match=r"timed out|no answer"):
            Web(LOCAL).get(url, 0.05)


@contextmanager
def raw_server(serve):
    """A server that calls ``serve`` with its one connection and an event that ends it."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run():
            one, _ = listening.accept()
            with one:
                serve(one, over)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            over.set()
            thread.join()


def drip(text, first=b""):
    """Return what sends ``first``, then a byte every 20 ms, each well within the request's time."""

    def serve(one, over):
        one.sendall(first)
        for place in range(len(text)):
            if over.wait(0.02):
                return
            try:
                one.sendall(text[place : place + 1])
            except OSError:
                return

    return serve


def test_slow_answer_ends_at_the_time_limit():
    with raw_server(drip(b"HTTP/1.1 200 OK" + b" " * 5000)) as url:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            Web(LOCAL).get(url, 0.3)
        assert time.monotonic() - began < 10  # the server takes 100 s


def test_status_is_enough_and_the_rest_ends_at_the_time_limit():
    with raw_server(drip(b"x: y\r\n" * 5000, b"HTTP/1.1 204 No Content\r\n")) as url:
        assert Web(LOCAL).get(url, 1) == 204


def test_answer_that_is_not_http_fails():
    with (
        raw_server(lambda one, _: one.sendall(b"220 ready\r\n")) as url,
        pytest.raises(OSError, match="no answer of a web server"),
    ):
        Web(LOCAL).get(url, 5)


@pytest.fixture
def resolving(monkeypatch):
    """Make every name resolve to the addresses of a list."""
    addresses = []

    def getaddrinfo(_host, port, *_args, **_keys):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return addresses


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "::1", "169.254.169.254", "fe80::1%eth0", "0.0.0.0", "::",
     "::ffff:127.0.0.1", "::ffff:169.254.169.254", "fd00:ec2::254", "100.100.100.200", "224.0.0.1"],
)  # fmt: skip
def test_allowed_name_that_leads_to_a_special_address_is_refused(resolving, monkeypatch, address):
    def connect(*_args):
        raise AssertionError("connected")

    monkeypatch.setattr(socket, "create_connection", connect)
    resolving.append(address)
    one = Requests(frozenset({"canary.example.org"}))
    one.open()
    one.submit(Request(RequestKind.URL, "http://canary.example.org/"))
    until(lambda: one.statistics.refused == 1)
    assert (one.statistics.sent, one.statistics.failed) == (0, 0)


@pytest.mark.parametrize(
    ("host", "hosts"),
    [
        ("canary.example.org", {"canary.example.org", "127.0.0.1"}),  # both are listed
        ("localhost", {"localhost"}),
    ],
)
def test_special_address_that_is_listed_is_asked(resolving, host, hosts):
    resolving.append("127.0.0.1")
    with server(fine) as (url, paths):
        port = url.rpartition(":")[2]
        assert Web(frozenset(hosts)).get(f"http://{host}:{port}/x", 5) == 200
    assert paths == ["/x"]


def test_ordinary_address_beside_a_special_one_is_asked(resolving, monkeypatch):
    asked = []

    def connect(address, timeout_s):
        asked.append(address)
        raise ConnectionRefusedError("closed")

    monkeypatch.setattr(socket, "create_connection", connect)
    resolving += ["169.254.169.254", "192.0.2.7"]
    with pytest.raises(ConnectionRefusedError):
        Web(frozenset({"a"})).get("http://a/", 5)
    assert asked == [("192.0.2.7", 80)]


def test_name_server_that_does_not_answer_ends_at_the_time_limit(monkeypatch):
    leave = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_keys: leave.wait(20) and [])
    one = Web(frozenset({"a"}))
    try:
        for _ in range(6):  # the fifth finds no room for its question
            with pytest.raises(TimeoutError):
                one.get("http://a/", 0.05)
        waiting = [each for each in threading.enumerate() if each.name == "requests-name"]
        assert len(waiting) == 4
    finally:
        leave.set()
        until(lambda: all(each.name != "requests-name" for each in threading.enumerate()))


def test_refused_address_is_an_error(resolving):
    resolving.append("169.254.169.254")
    with pytest.raises(AddressRefusedError, match="a: no address that requests may go to"):
        Web(frozenset({"a"})).get("http://a/", 5)


def test_host_that_is_not_allowed_is_not_asked():
    with server(fine) as (url, paths):
        one = Requests(frozenset({"example.org"}))
        one.open()
        one.submit(Request(RequestKind.URL, url))
        assert (one.statistics.refused, paths) == (1, [])


def test_replayed_records_cause_no_requests():
    one = Requests(LOCAL)
    one.submit(Request(RequestKind.URL, "http://127.0.0.1:1/"))
    assert one.statistics == requests.RequestStatistics()


def test_full_queue_drops_and_counts(monkeypatch):
    entered, leave = threading.Semaphore(0), threading.Event()

    def slow(_web, _url, _timeout_s):
        entered.release()
        leave.wait(20)

    monkeypatch.setattr(Web, "get", slow)
    one, request = Requests(LOCAL), Request(RequestKind.URL, "http://127.0.0.1/")
    one.open()
    for _ in range(requests.THREADS):
        one.submit(request)
        assert entered.acquire(timeout=20)
    for _ in range(requests.QUEUE_MAX + 3):
        one.submit(request)
    assert one.statistics.dropped == 3
    leave.set()
    until(lambda: one.statistics.sent == requests.THREADS + requests.QUEUE_MAX)


def test_dns_lookup_asks_the_resolver():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.bind(("127.0.0.1", 0))
        resolver.settimeout(10)
        one = Requests(frozenset({".example.org"}), f"127.0.0.1:{resolver.getsockname()[1]}")
        one.open()
        one.submit(Request(RequestKind.DNS, "canary.example.org"))
        query, sender = resolver.recvfrom(512)
        resolver.sendto(b"\0\0" + query[2:], sender)  # of another query
        resolver.sendto(query, sender)
        until(lambda: one.statistics.sent == 1)
    assert query[2:] == dns_query(0, "canary.example.org")[2:]
    assert query[12:] == b"\x06canary\x07example\x03org\0\0\x01\0\x01"


def test_resolver_that_does_not_answer_fails():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(TimeoutError):
            look_up("a.b", f"127.0.0.1:{silent.getsockname()[1]}", 0.05)


def test_first_resolver_of_the_system(tmp_path):
    file = tmp_path / "resolv.conf"
    file.write_text("# none\nsearch a.b\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n")
    assert system_resolver(file) == "192.0.2.1"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
        ("fe80::1%eth0", ("fe80::1%eth0", 53)),
    ],
)
def test_address_of_a_resolver(text, address):
    assert resolver_address(text) == address


@pytest.mark.parametrize("text", ["dns.example.org", "192.0.2.1:", "192.0.2.1:0", "[::1]", "a:53"])
def test_resolver_that_is_no_address_is_refused_at_the_start(text):
    with pytest.raises(ValueError, match="expected ADDRESS, ADDRESS:PORT"):
        Settings.model_validate({"policy_resolver": text})


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("example.org", True),
        ("EXAMPLE.org.", True),
        ("a.example.org", False),
        ("a.b.example.net", True),
        ("example.net", False),
        ("badexample.net", False),
    ],
)
def test_allow_list(host, allowed):
    assert is_allowed(host, frozenset({"example.org", ".example.net"})) is allowed


SETTING = "hosts in the setting --policy-request-hosts (TETRA_POLICY_REQUEST_HOSTS)"


@pytest.mark.parametrize(
    ("action", "refused"),
    [
        ({"arg_url": "http://a/b"}, ("argUrl", "requests to a are not allowed", SETTING)),
        ({"arg_url": "ftp://ok/"},
         ("argUrl", '"ftp://ok/" is not a URL', "http://HOST/... or https://HOST/...")),
        ({"arg_url": "http://me@ok/"},
         ("argUrl", '"http://me@ok/" is not a URL', "http://HOST/... or https://HOST/...")),
        ({"arg_url": "http://ok@evil/"},
         ("argUrl", '"http://ok@evil/" is not a URL', "http://HOST/... or https://HOST/...")),
        ({"arg_url": "http://evil#@ok/"}, ("argUrl", "requests to evil are not allowed", SETTING)),
        ({"arg_url": "http://ok.bad/"}, ("argUrl", "requests to ok.bad are not allowed", SETTING)),
        ({"arg_url": "http://0x7f.1/"}, ("argUrl", "requests to 0x7f.1 are not allowed", SETTING)),
        ({"arg_url": "http://ok:99999/"},
         ("argUrl", '"http://ok:99999/": port out of range 0-65535', "")),
        ({"arg_url": "http://ok/a b"},
         ("argUrl", "a URL has printable ASCII characters only", "")),
        ({"arg_url": "https://ok/"}, None),
        ({"arg_fqdn": "a..b"}, ("argFqdn", '"a..b" is not a host name', "")),
        ({"arg_fqdn": "a.b"}, ("argFqdn", "requests to a.b are not allowed", SETTING)),
        ({"arg_fqdn": "ok"}, None),
    ],
)  # fmt: skip
def test_refusals(action, refused):
    kind = ActionKind.GET_URL if "arg_url" in action else ActionKind.DNS_LOOKUP
    made = Action(kind=kind, place=Place(), **action)
    assert why_refused(made, frozenset({"ok"})) == refused
