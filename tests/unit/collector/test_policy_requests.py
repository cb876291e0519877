"""GetUrl and DnsLookup: what is allowed, what is sent, and that nothing waits for it."""

import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from collector import requests
from collector.policies.check_requests import is_allowed, why_refused
from collector.policies.table import Request, RequestKind
from collector.requests import Requests, dns_query, get_url, look_up, system_resolver
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
def server(respond):
    """A web server that keeps the paths it was asked for."""
    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            respond(self)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        one.daemon_threads = True
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{one.server_address[1]}", paths
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


def test_redirect_is_not_followed():
    def elsewhere(handler):
        handler.send_response(302)
        handler.send_header("Location", "/secret")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with server(elsewhere) as (url, paths):
        assert get_url(f"{url}/here", 5) == 302
    assert paths == ["/here"]


def test_answer_that_never_ends_is_left():
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 4096)
        except OSError:
            pass

    with server(endless) as (url, _):
        assert get_url(url, 5) == 200


def test_server_that_does_not_answer_costs_the_time_out_only():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(OSError, match=r"timed out|no answer"):
            get_url(url, 0.05)


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

    def slow(_url, _timeout_s):
        entered.release()
        leave.wait(20)

    monkeypatch.setattr(requests, "get_url", slow)
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
