"""Names asked for, by policy network: one question in many ways, each is one record of who asks."""

import contextlib
import itertools
import socket
import subprocess

import pytest

from collector.policies.check import Host
from collector.policies.plan_policy import check_document
from readymade import load, render
from support.policies import btf, in_child
from support.ready_made import watching
from support.workloads import built

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

DNS = 53
PEERS = {
    "ipv4": (socket.AF_INET, "127.0.0.1"),
    "ipv6": (socket.AF_INET6, "::1"),
    "mapped": (socket.AF_INET6, "::ffff:127.0.0.1"),
}
CALLS = ("sendto", "sendmsg", "connected", "corked")
NO_SUCH_WAY = 77
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def asked(policies):
    with watching(policies, "network", udp="false") as watch:
        yield watch


def lookups(watch, pid):
    """Return a process's lookups; those that it made before the mark have arrived."""
    mark = in_child(lambda: ask("ipv4", "sendto", b"mark"))
    watch.wait_for(lambda: of_lookups(watch, mark))
    return of_lookups(watch, pid)


def of_lookups(watch, pid):
    watch.loaded.pump()
    return [one for one in watch.loaded.of(pid) if watch.message_of(one) == "lookup"]


def ask(peer, call, question, kind=socket.SOCK_DGRAM, port=DNS):
    family, address = PEERS[peer]
    with socket.socket(family, kind) as one, contextlib.suppress(ConnectionRefusedError):
        if call == "sendto":
            one.sendto(question, (address, port))
            return
        if call == "sendmsg":
            one.sendmsg([question[:3], question[3:]], [], 0, (address, port))
            return
        one.connect((address, port))
        if call == "corked":
            one.send(question[:3], socket.MSG_MORE)
            question = question[3:]
        one.send(question)


@pytest.mark.parametrize(("peer", "call"), [*itertools.product(PEERS, CALLS)])
def test_ways_to_ask(asked, peer, call):
    family, address = PEERS[peer]
    if family == socket.AF_INET6 and not has_ipv6():
        pytest.skip("no IPv6 on the loopback device")
    question = f"question {next(NUMBERS)} by {call} over {peer}".encode()
    pid = in_child(lambda: ask(peer, call, question))
    (record,) = lookups(asked, pid)
    packet, protocol, payload = record.args
    assert (packet.dport, packet.protocol, protocol) == (DNS, 17, 17)
    bare = address.removeprefix("::ffff:")
    assert packet.daddr == socket.inet_pton(socket.AF_INET if "." in bare else family, bare)
    if call == "corked":  # named in the head: what is behind the first piece lies elsewhere
        assert (payload.data, payload.original_size) == (question[:3], len(question))
    else:
        assert payload == question


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
        one.bind(("::1", 0))
        return True
    return False


@pytest.mark.parametrize("way", ["sendmmsg", "write", "writev", "ring"])
def test_rarer_ways_to_ask(asked, tmp_path_factory, way):
    program = built("evasions", tmp_path_factory.mktemp("evasions"))
    with subprocess.Popen([program, "send", way, str(DNS)]) as process:
        if process.wait(60) == NO_SUCH_WAY:
            pytest.skip(f"no such way here: {way}")
    (record,) = lookups(asked, process.pid)
    assert record.args[2] == b"x"


def test_other_ports_and_protocols_are_no_lookups(asked):
    def send():
        ask("ipv4", "sendto", b"x", port=DNS + 1)
        ask("ipv4", "connected", b"x", kind=socket.SOCK_STREAM)

    assert not lookups(asked, in_child(send))


def test_no_program_runs_for_packets_of_tcp_where_functions_can_be_hooked():
    anything = Host(btf(), lambda _mechanism, _sleepable: "")
    made = check_document(render(load("network"), {}), "network.yaml", anything)
    hooked = {
        target.attach
        for hook in made.hooks
        for target in hook.targets
        if hook.hook.message == b"lookup"
    }
    assert hooked == {"ip_send_skb", "ip6_send_skb"}
