"""``tetra tracingpolicy explain`` and ``check --node``: what nodes answer, as a person reads it."""

import json

import pytest

from support.policy_server import PlanServer
from tetra.v1.plans_pb2 import NodePlan, PlannedHook, PolicyMistake

DOCUMENT = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: files}
spec:
  kprobes:
  - call: sys_openat
    args: [{index: 1, type: string}]
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "p.yaml").write_text(DOCUMENT)
    return str(tmp_path / "p.yaml")


def plan(name, *hooks, kernel="6.18.0", **fields):
    return NodePlan(node_name=name, kernel=kernel, machine="x86_64", hooks=hooks, **fields)


def hook(entry, exit="", targets=("__x64_sys_openat",), **fields):
    return PlannedHook(
        hook="kprobe:sys_openat",
        entry=entry,
        exit=exit,
        targets=targets,
        target_count=len(targets),
        **fields,
    )


def test_nodes_with_one_plan_stand_together(tetra, serve, file):
    server = PlanServer(
        plan("a", hook("fentry", "fexit")),
        plan("b", hook("fentry", "fexit")),
        plan(
            "old",
            hook("raw_tracepoint sys_enter", note="fentry: not permitted", missing=["sys_x"]),
            kernel="5.10.0",
        ),
        plan("bad", mistakes=[PolicyMistake(line=6, column=11, message="none", allowed="some")]),
        NodePlan(node_name="mute", error="no answer within 20 s"),
    )
    done = tetra("tp", "explain", file, "--label", "zone=a", "--server-address", serve(server))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "files on a, b, Linux 6.18.0 x86_64:",
        "  HOOK               ATTACHED TO       BY                COST",
        "  kprobe:sys_openat  __x64_sys_openat  fentry and fexit  50 ns a call",
        "",
        "files on old, Linux 5.10.0 x86_64:",
        "  HOOK               ATTACHED TO       BY                        COST",
        "  kprobe:sys_openat  __x64_sys_openat  raw_tracepoint sys_enter  "
        "20 ns every system call of the host",
        "  kprobe:sys_openat: not by fentry: not permitted",
        "  kprobe:sys_openat: this kernel lacks sys_x",
        "",
        "files cannot be loaded on bad, Linux 6.18.0 x86_64:",
        f"  {file}:6:11: none (allowed: some)",
        "",
        "mute: not planned: no answer within 20 s",
        "",
        "A call that is reported takes 100 ns more, and its arguments:",
        "75 ns for a path, 10 to 80 ns for a string, 700 ns for a stack trace.",
    ]
    (request,) = server.requests
    assert (request.yaml, dict(request.nodes.labels)) == (DOCUMENT, {"zone": "a"})
    assert not request.with_source


def test_many_targets_are_counted(tetra, serve, file):
    many = hook("kprobe.multi", targets=[f"f{i}" for i in range(5)])
    many.target_count = 300
    done = tetra("tp", "explain", file, "--server-address", serve(PlanServer(plan("a", many))))
    assert done.returncode == 0
    assert "f0, f1, f2 and 297 more  kprobe.multi  50 ns a call" in done.stdout


def test_source_of_the_first_node_that_can_load_it(tetra, serve, file):
    server = PlanServer(
        plan("a", mistakes=[PolicyMistake(message="x")]),
        plan("b[1]", hook("fentry"), source="int hook0() {}\n"),
    )
    done = tetra("tp", "explain", file, "--source", "--server-address", serve(server))
    assert (done.returncode, done.stdout) == (0, "int hook0() {}\n")
    assert done.stderr == "tetra: as node b[1] compiles it\n"
    assert [list(one.nodes.names) for one in server.requests] == [[], ["b[[]1]"]]
    assert [one.with_source for one in server.requests] == [False, True]


def test_explain_as_json_and_without_nodes(tetra, serve, file):
    flags = ("--server-address", serve(PlanServer(plan("a", hook("fentry")))))
    done = tetra("tp", "explain", file, "-o", "json", *flags)
    assert json.loads(done.stdout)["hooks"][0]["entry"] == "fentry"
    done = tetra("tp", "explain", file, "--server-address", serve(PlanServer()))
    assert done.returncode == 1
    assert done.stderr.endswith("no selected node is alive; tetra nodes lists them\n")


def test_check_on_nodes_merges_their_mistakes(tetra, serve, file):
    one = PolicyMistake(line=6, column=11, message="there is no function", allowed="x, y")
    server = PlanServer(plan("a", mistakes=[one]), plan("b", mistakes=[one]))
    done = tetra("tp", "check", file, "--node", "*", "--server-address", serve(server))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == f"{file}:6:11: there is no function (allowed: x, y)\n"
    silent = PlanServer(NodePlan(node_name="c", error="no answer within 20 s"))
    done = tetra("tp", "check", file, "--node", "c", "--server-address", serve(silent))
    assert done.returncode == 1
    assert done.stderr == "tetra: error: check: node c: no answer within 20 s\n"
