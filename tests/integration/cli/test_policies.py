"""``tetra tracingpolicy``: what the commands send, print, and say of refusals."""

import json

import grpc
import pytest

from support.policy_server import FleetServer, PlainPolicies, node_policy
from tetra.v1.policies_pb2 import (
    ROLLOUT_WHEREVER,
    FleetPolicy,
    PolicyChange,
    PolicyOrigin,
    PolicySpec,
)
from tetragon.sensors_pb2 import (
    STATUS_CALL_NOT_FOUND,
    STATUS_LOADED,
    TP_MODE_ENFORCE,
    TP_MODE_MONITOR,
    TP_MODE_MONITOR_ONLY,
    TP_STATE_ENABLED,
    TP_STATE_LOAD_ERROR,
    TP_STATE_LOADING,
    TP_STATE_PARTIALLY_ENABLED,
    TracingPolicyStatus,
)

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
def fleet():
    return FleetServer()


@pytest.fixture
def plain():
    return PlainPolicies()  # type: ignore[abstract]  # the others answer UNIMPLEMENTED


@pytest.fixture
def file(tmp_path):
    (tmp_path / "p.yaml").write_text(DOCUMENT)
    return str(tmp_path / "p.yaml")


@pytest.fixture
def tp(tetra, serve):
    """Run ``tetra tracingpolicy`` against a server."""

    def run(server, *arguments, **options):
        address = serve(server)
        return tetra("tracingpolicy", *arguments, "--server-address", address, **options)

    return run


def test_add_sends_the_document_and_reports_the_nodes(tp, fleet, file):
    fleet.change = PolicyChange(
        revision=7,
        nodes=[node_policy("a"), node_policy("b"), node_policy("c", alive=False)],
    )
    fleet.change.policy.name = "files"
    done = tp(
        fleet, "add", file, "-m", "monitor", "--replace", "--comment", "ticket 1",
        "--node", "web-*,db", "--label", "zone=a,role=x", "--except-node", "web-9",
        "--wherever-it-loads", "--canary", "5%", "--max-hits", "9", "--node-timeout", "3s",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f'tracing policy "{file}" added\n')
    assert done.stderr.splitlines() == [
        "tetra: policy files: revision 7 on 2 nodes; c loads it on return; no node is named db "
        "(known: a, b, c); it is loaded there when one joins",
        "tetra: this is a canary: tetra tracingpolicy promote files loads it everywhere, abort "
        "files ends it",
    ]
    (request,) = fleet.requests
    assert (request.yaml, request.domain, request.replace) == (DOCUMENT, "", True)
    assert (request.mode, request.comment) == (TP_MODE_MONITOR, "ticket 1")
    assert list(request.nodes.names) == ["web-*", "db"]
    assert dict(request.nodes.labels) == {"zone": "a", "role": "x"}
    assert list(request.nodes.except_names) == ["web-9"]
    assert request.rollout == ROLLOUT_WHEREVER
    assert (request.canary.percent, request.canary.max_hits) == (5, 9)
    assert not request.canary.HasField("max_lost")
    assert request.timeout.seconds == 3
    assert "@" in fleet.metadata["tetra-user"]


def test_add_names_the_nodes_that_refuse_and_what_to_do(tp, fleet, file):
    why = "files:6:11: there is no function\nfiles:7:1: nor this"
    bad = [node_policy(f"n{i}", TP_STATE_LOAD_ERROR, error=why) for i in range(5)]
    fleet.change = PolicyChange(
        revision=2,
        error="policy grpc:files: not loaded: node n0: ...",
        nodes=[*bad, node_policy("z", TP_STATE_LOAD_ERROR, error="no memory"), node_policy("ok")],
    )
    done = tp(fleet, "add", file)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "tetra: error: failed to add tracing policy: policy grpc:files: not loaded",
        f"  node n0, n1, n2 and 2 more: {file}:6:11: there is no function",
        f"    {file}:7:1: nor this",
        "  node z: no memory",
        "  to load it where it can be loaded: --wherever-it-loads; to choose nodes: --node",
    ]


def test_add_of_a_document_with_mistakes_shows_its_lines(tp, fleet, tmp_path):
    (tmp_path / "bad.yaml").write_text(DOCUMENT.replace("type: string", "type: strung"))
    fleet.refuse = grpc.StatusCode.INVALID_ARGUMENT, "policy:7:29: ..."
    done = tp(fleet, "add", str(tmp_path / "bad.yaml"))
    first, second = done.stderr.splitlines()
    assert first == f"tetra: error: failed to add tracing policy: {tmp_path}/bad.yaml: 1 mistake"
    assert second.startswith(f'  {tmp_path}/bad.yaml:7:29: spec.kprobes[0].args[0].type: "strung" ')
    assert second.endswith(", ...)")  # of some 50 types


def test_add_of_one_that_exists_advises_to_replace(tp, fleet, file):
    exists = "grpc:files, a sensor collection with the key already exists"
    fleet.refuse = grpc.StatusCode.ALREADY_EXISTS, f"failed to add tracing policy {exists}"
    done = tp(fleet, "add", file)
    assert done.stderr.splitlines() == [
        f"tetra: error: failed to add tracing policy: {exists}",
        "  to load this document in its place: --replace",
    ]
    assert len(fleet.requests) == 1  # a refusal is not repeated


def test_tetragons_commands_on_a_plain_tetragon(tp, plain, file):
    assert tp(plain, "add", file).stdout == f'tracing policy "{file}" added\n'
    assert tp(plain, "disable", "files").stdout == 'tracing policy "files" disabled\n'
    assert tp(plain, "enable", "files").stdout == 'tracing policy "files" enabled\n'
    done = tp(plain, "set-mode", "files", "monitor", "--domain", "static", "-n", "shop")
    assert done.stdout == 'tracing policy "files" set to mode "monitor"\n'
    assert tp(plain, "delete", "files").stdout == 'tracing policy "files" deleted\n'
    add, disable, enable, mode, delete = plain.requests
    assert add.yaml == DOCUMENT
    assert (disable.enable, enable.enable) == (False, True)
    assert (mode.mode, mode.domain, mode.namespace) == (TP_MODE_MONITOR, "static", "shop")
    assert not mode.HasField("enable")
    assert delete.name == "files"


def test_a_plain_tetragon_refuses_with_its_own_text_once(tp, plain, file):
    plain.refuse = "tracing policy grpc:files does not exist"
    done = tp(plain, "delete", "files")
    assert done.returncode == 1
    assert done.stderr == (
        "tetra: error: failed to delete tracing policy: tracing policy grpc:files does not exist\n"
    )
    assert len(plain.requests) == 1


def test_fleet_features_are_refused_by_a_plain_tetragon(tp, plain, file):
    done = tp(plain, "add", file, "--node", "a")
    assert done.returncode == 1
    assert "is a plain Tetragon, which does not know these flags" in done.stderr
    done = tp(plain, "configure", "files", "--every-node")
    assert "is a plain Tetragon, which does not know a choice of nodes" in done.stderr
    assert plain.requests == []


def test_configure_changes_only_what_is_named(tp, fleet):
    assert tp(fleet, "configure", "files", "--mode", "enforce").returncode == 0
    (request,) = fleet.requests
    assert request.mode == TP_MODE_ENFORCE
    assert not request.HasField("enable")
    assert not request.HasField("nodes")
    done = tp(fleet, "configure", "files", "--every-node", "--disable")
    assert done.stdout == 'tracing policy "files" configured\n'
    request = fleet.requests[-1]
    assert request.HasField("nodes")
    assert (request.HasField("enable"), request.enable) == (True, False)
    done = tp(fleet, "configure", "files")
    assert (done.returncode, len(fleet.requests)) == (2, 2)
    assert "nothing to change" in done.stderr


def listed():
    good = TracingPolicyStatus(
        id=2, name="files", domain="grpc", state=TP_STATE_ENABLED, mode=TP_MODE_ENFORCE,
        sensors=["generic_kprobe", "generic_lsm"], kernel_memory_bytes=2_404_000,
    )  # fmt: skip
    counters = good.stats.action_counters
    counters.post, counters.signal, counters.override, counters.monitor_set = 9, 1, 2, 4
    part = TracingPolicyStatus(
        id=13, name="p", namespace="shop", domain="static", kernel_memory_bytes=999,
        state=TP_STATE_PARTIALLY_ENABLED, mode=TP_MODE_MONITOR_ONLY, error="one\ntwo",
    )  # fmt: skip
    part.hook_statuses.add(
        section="kprobes", hook_idx=0, hook_description="sys_x", state=STATUS_LOADED
    )
    part.hook_statuses.add(
        section="kprobes", hook_idx=1, hook_description="none", state=STATUS_CALL_NOT_FOUND
    )
    return [good, part]


def test_list_prints_tetragons_table(tp, plain):
    plain.policies = listed()
    done = tp(plain, "list")
    assert done.stdout == (
        "ID   NAME    DOMAIN   STATE               FILTERID   NAMESPACE   SENSORS"
        "                      KERNELMEMORY   MODE           NPOST   NENFORCE   NMONITOR\n"
        "2    files   grpc     enabled             0          (global)    "
        "generic_kprobe,generic_lsm   2.40 MB        enforce        9       3          4\n"
        "13   p       static   partially_enabled   0          shop        "
        "                             999 B          monitor_only   0       0          0\n"
        "     SECTION   CFGIDX   DESCRIPTION   STATUS\n"
        "     kprobes   0        sys_x         loaded\n"
        "     kprobes   1        none          call_not_found\n"
    )
    assert done.stderr == "tetra: policy p: partially_enabled: one (and 1 more lines)\n"


def test_list_as_json_has_tetragons_form(tp, plain):
    plain.policies = listed()[:1]
    plain.policies[0].details.node_name = "ours"
    found = json.loads(tp(plain, "list", "-o", "json").stdout)
    (policy,) = found["policies"]
    assert policy["state"] == "TP_STATE_ENABLED"
    assert policy["stats"]["action_counters"]["post"] == "9"
    assert "details" not in policy
    assert tp(plain, "domains").stdout == "[grpc]\n"
    assert tp(plain, "domains", "-o", "json").stdout == '{"domains":["grpc"]}\n'


def fleet_policy(*nodes, **fields):
    policy = FleetPolicy(nodes=nodes, selected=len(nodes), state=TP_STATE_ENABLED, **fields)
    policy.policy.name, policy.policy.domain = "files", "grpc"
    policy.spec.revision = 3
    return policy


def test_status_of_all_policies_is_a_line_each(tp, fleet):
    fleet.policies = [
        fleet_policy(
            node_policy("a", hits=4, mode=TP_MODE_ENFORCE, lost={"ring": 2}),
            node_policy("b", TP_STATE_LOAD_ERROR, error="no memory\nline 2"),
            done=1, failed=1, away=2,
        )
    ]  # fmt: skip
    done = tp(fleet, "status")
    assert done.stdout.splitlines() == [
        "POLICY  DOMAIN  REV  STATE    MODE     NODES  FAILED  AWAY  HITS  LOST",
        "files   grpc    3    enabled  enforce  1/2    1       2     4     2",
        "files: node b: no memory",
        "files:   line 2",
    ]
    assert fleet.listed.with_static


def test_status_of_one_policy_is_a_line_a_node(tp, fleet):
    good = node_policy("a", revision=3, hits=4, runs=10, run_time_ns=1234, mode=TP_MODE_ENFORCE)
    good.hooks.add(hook="kprobe:sys_openat", mechanisms=["fentry"])
    good.hooks.add(hook="kprobe:sys_open", mechanisms=["fentry", "fexit"])
    fleet.policies = [
        fleet_policy(
            good,
            node_policy("b", TP_STATE_LOAD_ERROR, error="no memory"),
            node_policy("c", alive=False),
            node_policy("d", TP_STATE_LOADING),
            done=1, failed=1, away=1,
        )
    ]  # fmt: skip
    done = tp(fleet, "status", "files")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("files: revision 3, enabled, ██████▒▒▒▒▒▒░░░░░░░░░░░░ 1 of 4 nodes,")
    assert lines[1].split() == (
        ["NODE", "STATE", "REV", "MODE", "HITS", "LOST", "MISSED", "MEMORY", "COST", "HOOKS"]
    )
    assert [line.split()[:2] for line in lines[2:6]] == [
        ["b", "load_error"], ["d", "loading"], ["c", "away"], ["a", "enabled"],
    ]  # fmt: skip
    assert lines[5].endswith("123 ns/run  2 by fentry, 1 by fexit")
    assert lines[6:] == ["node b: no memory"]
    assert tp(fleet, "status", "other").stderr.endswith(
        "no such policy; tetra tracingpolicy list\n"
    )


def test_until_loaded_ends_with_the_last_node(tp, fleet):
    loading = node_policy("b", TP_STATE_LOADING)
    fleet.policies = [fleet_policy(node_policy("a", revision=3), loading, done=1)]
    fleet.later = [
        fleet.policies,
        [fleet_policy(node_policy("a", revision=3), node_policy("b", revision=3), done=2)],
    ]
    done = tp(fleet, "status", "files", "--until-loaded")
    assert done.returncode == 0
    assert [line.split(" ", 1)[1] for line in done.stdout.splitlines()] == [
        "grpc:files a enabled revision 3",
        "grpc:files b loading",
        "grpc:files b enabled revision 3",
    ]
    refused = node_policy("b", TP_STATE_LOAD_ERROR, error="no memory")
    fleet.later = [[fleet_policy(node_policy("a"), refused, done=1, failed=1)]]
    done = tp(fleet, "status", "files", "--until-loaded")
    assert done.returncode == 1
    assert done.stdout.endswith("grpc:files b load_error: no memory\n")


def revisions():
    first = PolicySpec(revision=1, yaml=DOCUMENT, enabled=True)
    first.origin.action = PolicyOrigin.ACTION_ADD
    first.origin.claimed, first.origin.who = "ann@desk", "token sha256:01234567"
    setattr(first.origin, "from", "ipv4:10.0.0.7:4711")
    first.origin.time.FromSeconds(1_767_225_600)
    second = PolicySpec(revision=2, deleted=True)
    second.nodes.names.append("web-*")
    second.origin.action = PolicyOrigin.ACTION_DELETE
    second.origin.comment = "ticket 1\x1b"
    return [second, first]


def test_history(tp, fleet):
    fleet.revisions = revisions()
    done = tp(fleet, "history", "files", TZ="UTC")
    assert done.stdout.splitlines() == [
        "REV  TIME                 ACTION  STATE    MODE  NODES  WHO"
        "                               FROM      COMMENT",
        "2    -                    delete  deleted  -     web-*  -"
        "                                 -         ticket 1\\x1b",
        "1    2026-01-01 00:00:00  add     enabled  -     every  "
        "ann@desk (token sha256:01234567)  10.0.0.7  ",
    ]
    shown = tp(fleet, "history", "files", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["revision"] for line in shown] == ["2", "1"]


def test_show_prints_the_document_of_a_revision(tp, fleet):
    fleet.revisions = revisions()
    assert tp(fleet, "show", "files", "--revision", "1").stdout == DOCUMENT
    assert tp(fleet, "show", "files").stderr == (
        "tetra: error: show: policy files: it was deleted by revision 2; for example: "
        "tetra tracingpolicy show files --revision 1\n"
    )
    assert "not kept; kept are 1, 2" in tp(fleet, "show", "files", "--revision", "9").stderr


def test_diff_compares_the_file_with_what_is_loaded(tp, fleet, tmp_path, file):
    fleet.revisions = revisions()[1:]
    same = tp(fleet, "diff", file)
    assert (same.returncode, same.stdout) == (0, "")
    (tmp_path / "new.yaml").write_text(DOCUMENT.replace("sys_openat", "sys_openat2"))
    done = tp(fleet, "diff", str(tmp_path / "new.yaml"))
    assert done.returncode == 3
    assert done.stdout.splitlines()[:2] == [
        "--- files revision 1",
        f"+++ {tmp_path}/new.yaml",
    ]
    assert "-  - call: sys_openat\n+  - call: sys_openat2\n" in done.stdout


def test_rollback_promote_and_abort(tp, fleet):
    fleet.change = PolicyChange(revision=4, nodes=[node_policy("a")])
    restored = PolicySpec(revision=4, enabled=False)
    restored.origin.from_revision = 1
    fleet.revisions = [restored, *revisions()]
    done = tp(fleet, "rollback", "files", "--revision", "1")
    assert done.stdout == 'tracing policy "files" rolled back to revision 1\n'
    assert done.stderr == "tetra: policy files: revision 4 on 1 node; it is disabled\n"
    assert fleet.requests[0].revision == 1
    assert tp(fleet, "promote", "files").stdout == 'tracing policy "files" promoted\n'
    assert tp(fleet, "abort", "files").stdout == 'tracing policy "files" aborted\n'
    fleet.refuse = grpc.StatusCode.FAILED_PRECONDITION, "policy grpc:files: it has no canary"
    done = tp(fleet, "promote", "files")
    assert done.stderr == (
        "tetra: error: failed to promote tracing policy: policy grpc:files: it has no canary\n"
    )


def test_names_of_policies_are_completed(tetra, serve, plain):
    plain.policies = listed()
    done = tetra(
        _TETRA_COMPLETE="bash_complete",
        COMP_WORDS=f"tetra --server-address {serve(plain)} tp delete ",
        COMP_CWORD="5",
    )
    assert done.stdout.splitlines() == ["plain,files", "plain,p"]
