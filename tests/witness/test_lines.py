"""``TETRA_POLICIES``: ready-made policies of ``make run``, and the lines that people read."""

import subprocess
import sys

import pytest

from e2e.test_embedded import BIN
from support.waiting import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

ACTS = """
import os, socket, sys, threading

folder = sys.argv[1]
os.chdir(folder)
open("a", "w").close()
os.rename("a", f"../{os.path.basename(folder)}/b")
os.chmod("b", 0o600)
os.symlink("b", "link")
open("link", "a").close()
directory = os.open(folder, os.O_RDONLY)
os.unlink("b", dir_fd=directory)
open(sys.argv[2]).close()

server = socket.create_server(("127.0.0.1", 0))

def serve():
    with server.accept()[0] as peer:
        peer.recv(64)
        peer.sendall(b"y" * 1000)

thread = threading.Thread(target=serve)
thread.start()
with socket.create_connection(server.getsockname()) as client:
    client.sendall(b"x" * 23)
    while client.recv(4096):
        pass
thread.join()
server.close()

question = bytes.fromhex("1234010000010000000000000377777707") + b"example"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.sendto(question + bytes.fromhex("03636f6d00001c0001"), ("127.0.0.1", 53))

if not os.fork():
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
    try:
        os.setuid(0)
    except OSError:
        os._exit(0)
os.wait()
"""


@pytest.fixture
def watched(stack):
    folder = stack.watched / "acts"
    folder.mkdir()
    stack.secret.write_text("x")
    return folder


def run_acts(watched, secret):
    """Run the acts; return the process's id."""
    command = [sys.executable, "-c", ACTS, watched, secret]
    acting = subprocess.Popen(command)
    assert acting.wait(60) == 0
    return acting.pid


def test_lines_of_ready_made_policies(stack, watched):
    launch = stack.launch
    pid = run_acts(watched, stack.secret)
    wait_until(lambda: launch.lines_with(f"💥 exit {pid}: "), 60, launch.text)
    wait_until(lambda: len(launch.lines_with(f"🔚 close {pid}: ")) == 3, 60, launch.text)
    lines = [line for _, line in launch.lines_with(f" {pid}: ")]
    for label, end in (
        ("📂 open", f"to write {watched}/a"),
        ("🔀 rename", f"{watched}/a -> {watched}/b"),
        ("🔏 chmod", f"{watched}/b 0600"),
        ("📄 create", f"{watched}/link -> b"),
        ("📂 open", f"to append {watched}/b"),
        ("❌ remove", f"{watched}/b"),
        ("📂 open", f"to read {stack.secret}"),
        ("🔎 lookup", "www.example.com AAAA at 127.0.0.1:53"),
        ("📤 send", "udp 127.0.0.1:53"),
    ):
        found = [one for one in lines if one.startswith(f"{label} ") and one.endswith(f" {end}")]
        assert len(found) == 1, (label, end, lines)
    (listening,) = (one for one in lines if one.startswith("👂 listen"))
    address = listening.split()[-1]
    assert any(one.endswith(f" tcp {address}") for one in lines if one.startswith("🔌 connect"))
    assert any(f" tcp {address} from 127.0.0.1:" in one for one in lines)
    assert any("sent 23 B received 1 kB in " in one for one in lines)
    assert any("sent 1 kB received 23 B in " in one for one in lines)
    assert launch.lines_with("🔑 setresuid")
    assert [line for _, line in launch.lines_with("🔑 setuid") if line.endswith("uid 0 EPERM")]
    _filters(launch, watched, address)


def _filters(launch, watched, address):
    """The short forms of filters, and ``top``, on the same events."""

    def tetra(*args):
        server = f"localhost:{launch.ports[1]}"
        command = [BIN / "tetra", *args, "--server-address", server]
        return subprocess.run(
            command, capture_output=True, check=True, text=True, timeout=60
        ).stdout.splitlines()

    past = ("getevents", "--since", "1h", "--no-follow")
    found = tetra(*past, "--files", str(watched))
    assert {line.split()[0] for line in found} == {"📂", "🔀", "🔏", "📄", "❌"}
    peers = tetra(*past, "--connections", "127.0.0.0/8")
    assert any(f" tcp {address} from " in line for line in peers)
    assert not any("📂" in line for line in peers)
    assert tetra(*past, "--connections", "192.0.2.0/24") == []
    assert any("FILE" in line for line in tetra("top", "--once", "--by", "file"))
