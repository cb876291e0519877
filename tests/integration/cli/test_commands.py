"""The small commands."""

import json
import subprocess
import sys

from cli import __version__
from tetra.v1.node_pb2 import NodeInfo


def test_version(serve, plain_tetragon_of, tetra):
    assert tetra("version").stdout == f"CLI version: {__version__}\n"
    address = serve(plain_tetragon_of([]))
    done = tetra("version", "--server", "--server-address", address)
    assert done.stdout == f"CLI version: {__version__}\nServer version: v9.9.9\n"


def test_status(serve, plain_tetragon_of, tetra):
    done = tetra("--server-address", serve(plain_tetragon_of([])), "status")
    assert (done.stdout, done.returncode) == ("Health Status: running\n", 0)


def test_no_server_at_the_address_is_one_line_and_exit_code_1(tetra):
    done = tetra("status", "--server-address", "127.0.0.1:1", "--retries", "0")
    assert done.returncode == 1
    assert done.stderr == (
        "tetra: error: connect: 127.0.0.1:1: connection refused; is the gateway running there?\n"
    )


def test_nodes(serve, gateway_of, tetra):
    node = NodeInfo(node_name="web-1\x1b", kernel="6.1", alive=True, processes=7, events_total=9)
    node.loss.by_cause["spool"] = 3
    node.policies.loaded, node.policies.failed = 2, 1
    done = tetra("nodes", "--server-address", serve(gateway_of([], nodes=[node])))
    assert done.stdout == (
        "NODE       STATE  SEEN  PROCS  EVENTS  RATE   LOST  POLICIES     VERSION  KERNEL\n"
        "web-1\\x1b  alive  -     7      9       0.0/s  3     2, 1 failed  -        6.1\n"
    )
    done = tetra("nodes", "-o", "json", "--server-address", serve(gateway_of([], nodes=[node])))
    assert json.loads(done.stdout)["events_total"] == "9"


def test_nodes_of_a_plain_tetragon(serve, plain_tetragon_of, tetra):
    done = tetra("nodes", "--server-address", serve(plain_tetragon_of([])))
    assert done.returncode == 1
    assert done.stderr.endswith("the server does not offer it\n")


def test_info(serve, plain_tetragon_of, tetra):
    done = tetra("info", "--server-address", serve(plain_tetragon_of([])))
    info = json.loads(done.stdout)
    assert info["Name"] == "tetra-gateway"
    assert info["Probes"] == {"ring-buffer": True}
    assert info["Conf"] == {"listen-address": None}


def test_log_level(serve, plain_tetragon_of, tetra):
    flags = ("--server-address", serve(plain_tetragon_of([])))
    assert tetra("loglevel", "get", *flags).stdout == "Current log level: LOG_LEVEL_INFO\n"
    done = tetra("loglevel", "set", "debug", *flags)
    assert done.stdout == "Log level set to: LOG_LEVEL_DEBUG\n"
    assert tetra(*flags, "loglevel", "get").stdout == "Current log level: LOG_LEVEL_DEBUG\n"
    assert tetra("loglevel", "set", "loud", *flags).returncode == 2


def test_doctor_has_advice_for_each_fault(tetra):
    done = tetra("doctor", "--nats-url", "nats://127.0.0.1:1", "--server-address", "127.0.0.1:1")
    assert done.returncode == 1
    found = [line for line in done.stdout.splitlines() if not line.startswith("  ")]
    assert len(found) == 9
    assert all(line[0] in "✔!✘" for line in found)
    assert done.stdout.endswith(
        "✘ NATS          127.0.0.1:1: connection refused\n"
        "                → start one (make run), or pass --nats-url\n"
        "✘ gateway       connect: 127.0.0.1:1: connection refused; is the gateway running there?\n"
        "                → start one (make run), or pass --server-address\n"
    )


def test_tree_is_printed_without_a_terminal(serve, gateway_of, make_event, tetra):
    event = make_event(1)
    event.process_exec.process.exec_id = "x"
    gateway = gateway_of([[event]])
    done = tetra("tree", "--server-address", serve(gateway))
    assert done.stdout == "1: root: /usr/bin/true 1 (running)\n"
    assert gateway.requests[0].snapshot
    assert gateway.requests[0].no_follow


def test_top_once(serve, gateway_of, make_event, tetra):
    event = make_event(1)
    address = serve(gateway_of([[event]]))
    done = tetra("top", "--once", "--interval", "300ms", "--server-address", address)
    _, _, titles, row, blank, running = (line.split() for line in done.stdout.splitlines())
    assert titles == ["BINARY", "STARTS/S", "ENDS/S", "STARTED"]
    assert row[::3] == ["/usr/bin/true", "1"]
    assert (blank, running) == ([], ["PID", "USER", "RUNNING", "LONGEST", "RUNNING"])
    assert done.returncode == 0
    piped = tetra("top", "--interval", "300ms", "--server-address", address)
    assert piped.stdout.splitlines()[3].startswith("/usr/bin/true ")


def test_version_is_quick_and_small(tetra):
    script = (
        "import re, sys; from cli.main import main; main(['version']); "
        "assert 'grpc' not in sys.modules and 'google.protobuf' not in sys.modules; "
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20
    )
    assert int(done.stdout.split()[-1]) < 30_000  # kB


def test_eventlog_at_a_gateway_names_the_address_that_is_meant(tetra, serve, gateway_of):
    done = tetra("eventlog", "get", "--server-address", serve(gateway_of([])))
    assert (done.returncode, done.stdout) == (2, "")
    assert "TETRA_EVENT_LOG_ADDRESS" in done.stderr
    assert done.stderr.endswith(
        "; for example: tetra eventlog get --server-address unix:///run/tetra-exporter/api.sock\n"
    )
