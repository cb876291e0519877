"""``tetra tracingpolicy try``, ``status --watch`` and ``getevents --audit``."""

import json
import time

import pytest

from support.policy_server import FleetServer, node_policy
from support.pseudo_terminal import Terminal
from support.waiting import wait_until
from tetra.v1.policies_pb2 import AuditEntry, FleetPolicy, PolicyOrigin, TryPolicyUpdate
from tetragon.events_pb2 import GetEventsResponse
from tetragon.sensors_pb2 import TP_STATE_ENABLED, TP_STATE_LOAD_ERROR, TP_STATE_LOADING
from tetragon.tetragon_pb2 import KprobeAction

DOCUMENT = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: files}
spec:
  kprobes:
  - call: sys_openat
    args: [{index: 1, type: string}]
"""
NAME = "files.try-1"


def opened(path, binary="/usr/bin/cat", action=KprobeAction.KPROBE_ACTION_POST):
    event = GetEventsResponse(node_name="a")
    event.time.GetCurrentTime()
    event.process_kprobe.process.binary = binary
    event.process_kprobe.function_name = "__x64_sys_openat"
    event.process_kprobe.args.add(string_arg=path)
    event.process_kprobe.action = action
    event.process_kprobe.policy_name = NAME
    return event


def update(*nodes, last=False, reason="", left_s=60):
    answer = TryPolicyUpdate(policy_name=NAME, nodes=nodes, last=last, reason=reason)
    answer.remaining.FromSeconds(left_s)
    return answer


@pytest.fixture
def fleet():
    return FleetServer()


@pytest.fixture
def file(tmp_path):
    (tmp_path / "p.yaml").write_text(DOCUMENT)
    return str(tmp_path / "p.yaml")


@pytest.fixture
def events(gateway_of):
    kill = KprobeAction.KPROBE_ACTION_SIGKILL
    return gateway_of(
        [
            [opened("/etc/passwd"), opened("/etc/passwd"), opened("/etc/shadow", action=kill)],
            [opened("/etc/passwd", "/usr/bin/less\x1b")],
        ]
    )


def test_try_counts_by_process_call_and_action(tetra, serve, fleet, events, file):
    fleet.updates = [
        update(node_policy("a", revision=1)),
        update(node_policy("a", revision=1, hits=4), last=True, reason="time is over", left_s=0),
    ]
    began_s = time.time()
    done = tetra(
        "tp", "try", file, "--for", "90s", "--node", "a*", "--max-hits", "9",
        "--server-address", serve(fleet, events),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "try files: monitor mode on 1 of 1 node, 4 events, 0 lost",
        "",
        "COUNT  PROCESS",
        "    3  /usr/bin/cat",
        "    1  /usr/bin/less\\x1b",
        "",
        "COUNT  CALL",
        "    3  openat(/etc/passwd)",
        "    1  openat(/etc/shadow)",
        "",
        "COUNT  WOULD HAVE DONE",
        "    1  SIGKILL",
    ]
    assert done.stderr == "tetra: time is over; the policy is removed\n"
    (request,) = fleet.requests
    assert (request.yaml, request.duration.seconds) == (DOCUMENT, 90)
    assert (list(request.nodes.names), request.max_hits) == (["a*"], 9)
    assert not request.HasField("max_lost")
    (stream,) = events.requests
    assert list(stream.allow_list[0].policy_names) == [NAME]
    # With what the nodes posted before the stream was there.
    assert 0 < stream.since.ToNanoseconds() / 1e9 < began_s


def test_try_as_json(tetra, serve, fleet, events, file):
    bad = node_policy("b", TP_STATE_LOAD_ERROR, error="no memory")
    fleet.updates = [
        update(node_policy("a", hits=4, lost={"ring": 2}), bad, last=True, reason="2 lost")
    ]
    done = tetra("tp", "try", file, "-o", "json", "--server-address", serve(fleet, events))
    found = json.loads(done.stdout)
    assert (found["policy"], found["events"], found["posted"], found["lost"]) == ("files", 4, 4, 2)
    assert found["processes"] == {"/usr/bin/cat": 3, "/usr/bin/less\x1b": 1}
    assert found["actions"] == {"SIGKILL": 1}
    assert found["nodes"][1] == {"node_name": "b", "hits": 0, "lost": 0, "error": "no memory"}
    assert done.stderr == "tetra: 2 lost; the policy is removed\n"
    assert done.returncode == 1  # a limit ended it, with time left


def test_try_that_no_node_could_load_fails(tetra, serve, fleet, gateway_of, file):
    bad = node_policy("b", TP_STATE_LOAD_ERROR, error="files.try-1a:6:11: there is no function")
    fleet.updates = [update(bad, last=True, reason="no node could load it")]
    done = tetra("tp", "try", file, "--server-address", serve(fleet, gateway_of([])))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "try files: monitor mode on 0 of 1 node, 1 failed, 0 events, 0 lost",
        f"node b: {file}:6:11: there is no function",
    ]


@pytest.mark.parametrize("end", ["key", "signal"])
def test_ctrl_c_ends_the_trial_and_prints_the_counts(
    serve, fleet, events, file, tetra_command, tetra_environment, end
):
    fleet.updates = [update(node_policy("a", revision=1, hits=4))]
    address = serve(fleet, events)
    terminal = Terminal(
        [*tetra_command, "tp", "try", file, "--server-address", address],
        tetra_environment(),
        columns=100,
    )
    try:
        terminal.wait_for("Ctrl-C ends it")
        lines = terminal.wait_for("/usr/bin/less")
        assert lines[0].startswith("try files: monitor mode on 1 of 1 node, 4 events, 0 lost, ")
        assert lines[0].endswith(" s left")
        assert not fleet.ended.is_set()
        if end == "key":
            terminal.press("\x03")
        else:
            terminal.process.terminate()
        terminal.wait_for("interrupted; the policy is removed")
        assert terminal.process.wait(30) == 0
        lines = terminal.lines
        assert lines[0] == "try files: monitor mode on 1 of 1 node, 4 events, 0 lost"
        assert not any("Ctrl-C ends it" in line for line in lines)
        assert fleet.ended.wait(30)
    finally:
        terminal.close()


def fleet_policy(*nodes, done=0, failed=0):
    policy = FleetPolicy(
        nodes=nodes, selected=len(nodes), done=done, failed=failed, state=TP_STATE_ENABLED
    )
    policy.policy.name, policy.policy.domain = "files", "grpc"
    policy.spec.revision = 3
    return policy


def test_a_watched_policy_is_redrawn_until_ctrl_c(serve, fleet, tetra_command, tetra_environment):
    many = [node_policy(f"n{i:03}", TP_STATE_LOADING) for i in range(100)]
    fleet.policies = [fleet_policy(*many)]
    loaded = [node_policy(f"n{i:03}", revision=3) for i in range(99)]
    bad = node_policy("n099", TP_STATE_LOAD_ERROR, error="no memory")
    fleet.later = [[fleet_policy(*loaded, bad, done=99, failed=1)]]
    terminal = Terminal(
        [*tetra_command, "tp", "status", "files", "--watch", "--server-address", serve(fleet)],
        tetra_environment(),
        columns=90,
    )
    try:
        lines = terminal.wait_for("node n099: no memory")  # the last line that is drawn
        assert lines[0].startswith("files: revision 3, enabled, ███████████████████████▒ 99 of ")
        assert lines[2].split()[:2] == ["n099", "load_error"]
        shown = [line for line in lines if line]
        assert shown[-2:] == ["... and 81 more nodes: 81 enabled", "node n099: no memory"]
        terminal.press("\x03")
        assert terminal.process.wait(30) == 0
        assert fleet.ended.wait(30)
    finally:
        terminal.close()


def test_a_watch_survives_its_gateway(serve, fleet, tetra_command, tetra_environment, tetra):
    fleet.released.set()  # its stream ends at once
    fleet.policies = [fleet_policy(node_policy("a", TP_STATE_LOADING))]
    other = FleetServer()
    other.policies = [fleet_policy(node_policy("a", revision=3), done=1)]
    addresses = f"{serve(fleet)},{serve(other)}"
    done = tetra("tp", "status", "files", "--until-loaded", "--server-address", addresses)
    assert done.returncode == 0
    assert [line.split(" ", 1)[1] for line in done.stdout.splitlines()] == [
        "grpc:files a loading",
        "grpc:files a enabled revision 3",
    ]
    first, second = done.stderr.splitlines()
    assert first.endswith("it ended; connecting again")
    assert second.startswith("tetra: connected to ")


def entries():
    done = AuditEntry(revision=3, outcome=AuditEntry.OUTCOME_APPLIED, applied=2)
    done.policy.name, done.policy.domain = "files", "grpc"
    done.origin.action = PolicyOrigin.ACTION_ADD
    done.origin.who, done.origin.claimed = "ops", "ann@desk"
    setattr(done.origin, "from", "ipv6:%5B::1%5D:4711")
    done.origin.comment = "ticket 1"
    done.time.FromSeconds(1_767_225_600)
    bad = AuditEntry()
    bad.CopyFrom(done)
    bad.outcome, bad.error = AuditEntry.OUTCOME_FAILED, "node a: no memory\x1b\nsecond"
    return [done, bad]


def test_audit_prints_who_changed_what(tetra, serve, fleet):
    fleet.entries = entries()
    flags = ("--server-address", serve(fleet))
    done = tetra("getevents", "--audit", "--last", "5", "--no-follow", *flags, TZ="UTC")
    assert done.stdout.splitlines() == [
        "2026-01-01 00:00:00 applied  add: grpc:files revision 3, by ann@desk (ops), from ::1, "
        'on every, done on 2 nodes, "ticket 1"',
        "2026-01-01 00:00:00 failed   add: grpc:files revision 3, by ann@desk (ops), from ::1, "
        'on every, done on 2 nodes, "ticket 1"',
        "    node a: no memory\\x1b",
        "    second",
    ]
    (request,) = fleet.requests
    assert (request.last, request.follow, request.name) == (5, False, "")
    done = tetra("getevents", "--audit", "-o", "json", "--policy-names", "files",
                 "--since", "@5", "--no-follow", *flags)  # fmt: skip
    assert [json.loads(line)["outcome"] for line in done.stdout.splitlines()] == [
        "OUTCOME_APPLIED", "OUTCOME_FAILED",
    ]  # fmt: skip
    assert (fleet.requests[-1].name, fleet.requests[-1].since.seconds) == ("files", 5)


def test_audit_follows_until_it_is_interrupted(serve, fleet, tetra_command, tetra_environment):
    fleet.entries = entries()
    terminal = Terminal(
        [*tetra_command, "getevents", "--audit", "--server-address", serve(fleet)],
        tetra_environment(),
        columns=150,
    )
    try:
        terminal.wait_for("    second")
        assert terminal.process.poll() is None
        terminal.press("\x03")
        assert terminal.process.wait(30) == 0
        wait_until(fleet.ended.is_set, 20, lambda: "the stream continues")
    finally:
        terminal.close()


def test_audit_refuses_flags_that_choose_among_events(tetra):
    done = tetra("getevents", "--audit", "--pid", "1")
    assert done.returncode == 2
    assert "--audit and --pid: this flag selects events; for example" in done.stderr
    assert tetra("getevents", "--audit", "-o", "compact").returncode == 2
